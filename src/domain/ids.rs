//! Identities and hash recipes (contract 1.2).
