//! S3 answers some requests two seconds late: the run is whole.

use super::Site;
use super::truth::assert_run_is_whole;
use crate::s3::slow::SlowDoor;
use crate::support;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_store_that_is_slow_now_and_then_gives_a_whole_run() {
    let mut site = Site::new();
    let run = site.ready_run();
    let server = support::s3_endpoint();
    let door = SlowDoor::before(server.strip_prefix("http://").unwrap());
    site.set("OBJECT_STORE_ENDPOINT", format!("http://{}", door.address));
    let (ends, slowed) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(800));
                door.slow_down(Duration::from_secs(2));
                std::thread::sleep(Duration::from_millis(400));
                door.slow_down(Duration::ZERO);
                slowed.store(true, Ordering::Relaxed);
            }
        });
        let streamed = site.up_once_within(6.0);
        ends.store(true, Ordering::Relaxed);
        let streamed = streamed.ok();
        assert_eq!(
            streamed.json()[0]["status"],
            "STREAMED",
            "{}",
            streamed.everything()
        );
    });
    assert!(slowed.load(Ordering::Relaxed));
    site.set("OBJECT_STORE_ENDPOINT", server);
    assert_run_is_whole(&site, &run);
    site.verify();
}
