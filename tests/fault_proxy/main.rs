//! The fault proxy as a program: `cargo run --example kinesis_fault_proxy -- UPSTREAM [LISTEN]`.
//!
//! For example `http://127.0.0.1:14569 127.0.0.1:14580`. Each line of standard input is a plan as JSON, such as
//! `{"seed":1,"throttle":0.1,"partial":0.05,"lose":0.1}`; what happened so far is printed after it. It runs until
//! it is ended.

#[path = "mod.rs"]
mod fault_proxy;

use fault_proxy::{FaultProxy, Plan};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let proxy = match &arguments[..] {
        [upstream] => FaultProxy::start(upstream, Plan::default()),
        [upstream, listen] => FaultProxy::start_at(listen, upstream, Plan::default()),
        _ => panic!("usage: kinesis_fault_proxy UPSTREAM [LISTEN]"),
    };
    println!("{}", proxy.url());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(plan) => proxy.set_plan(plan),
            Err(error) => eprintln!("not a plan: {error}"),
        }
        println!("{}", serde_json::to_string(&proxy.stats()).unwrap());
    }
    loop {
        std::thread::park();
    }
}
