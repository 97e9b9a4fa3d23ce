//! Codes, answers and refusals of the contract, each provoked from outside.

mod oracle_check;
mod oracle_pack;
