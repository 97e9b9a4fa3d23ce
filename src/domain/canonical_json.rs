//! JSON in the three canonical forms (contract 0.1).
