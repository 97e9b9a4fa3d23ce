//! Codes, answers and refusals of the contract, each provoked from outside.

mod bounds;
mod gate_ops;
mod gate_policy;
mod gate_reporting;
mod hostile;
mod http_edge;
mod oracle_check;
mod oracle_facts;
mod oracle_pack;
mod overload;
mod push;
mod ready_decisions;
mod register;
mod scenario_reemit;
mod scenario_run;
mod security;
mod single_pushes;
mod stream_refusals;
mod supervision_tree;
