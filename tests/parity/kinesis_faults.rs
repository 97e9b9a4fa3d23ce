//! The Kinesis server is killed in the middle of puts.

use crate::kinesis::{TestStream, check, events, publish, unpaced};
use crate::support;
use wellspring::event_bus::kinesis::Producer;

#[test]
fn records_and_sequence_numbers_survive_a_killed_server() {
    let faults = support::Faults::begin();
    let stream = TestStream::new(support::kinesis_endpoint(), 2);
    let producer = Producer::new(stream.client.clone(), unpaced(1)).unwrap();
    let events = events(3_000, 300, 120);
    let mut placed = publish(&producer, &stream.name, &events[..1_000]);
    let rest = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let parts = events[1_000..].chunks(250);
            let placed = parts.map(|part| publish(&producer, &stream.name, part));
            placed.collect::<Vec<_>>().concat()
        });
        faults.kill(support::Server::Kinesis);
        faults.restart(support::Server::Kinesis);
        writer.join().unwrap()
    });
    placed.extend(rest);
    let strays = check(&stream.everything(), &events, &placed);
    println!("{strays} strays after a killed server");
}
