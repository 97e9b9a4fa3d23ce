//! Platform run ids, run roots and store prefixes (contract 1.4).
