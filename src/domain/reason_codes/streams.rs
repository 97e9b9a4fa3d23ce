//! Codes of the managed bus: Kinesis streams.

use super::{Chapter, CodeClass::*, Speaker::*, row};

/// Kinesis streams.
pub const CHAPTER: Chapter = Chapter {
    title: "Kinesis streams",
    codes: &[
        row(
            "KINESIS_ACCESS_DENIED",
            &[Bus],
            FixTheCause,
            "the service does not accept the credentials or does not allow the operation",
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, region and endpoint; nothing else is read",
        ),
        row(
            "KINESIS_CREDENTIALS_MISSING",
            &[Config, Bus],
            FixTheCause,
            "the environment holds no credentials; shared configuration files and the metadata service are never asked",
            "set the variable that is named",
        ),
        row(
            "KINESIS_ENDPOINT_INVALID",
            &[Config, Bus],
            FixTheCause,
            "the endpoint is not http:// or https:// and a host",
            "fix `endpoint_url` of the bus, or the variable it comes from",
        ),
        row(
            "KINESIS_RECORD_TOO_LARGE",
            &[Bus],
            FixTheCause,
            "a record is larger than the stream takes; nothing of the call was sent",
            "allow larger records on the stream and in the settings, or send smaller events",
        ),
        row(
            "KINESIS_REGION_MISSING",
            &[Config, Bus],
            FixTheCause,
            "neither wiring nor environment names a region",
            "set `region` of the bus or AWS_DEFAULT_REGION",
        ),
        row(
            "KINESIS_REQUEST_REFUSED",
            &[Bus],
            FixTheCause,
            "the service refuses the request itself; the sentence holds its text",
            "report it with the text: limits or names do not fit the service",
        ),
        row(
            "KINESIS_STREAM_NOT_FOUND",
            &[Bus],
            FixTheCause,
            "there is no such stream in this region at this endpoint",
            "create it (`make platform-parity-bootstrap`), or fix stream, region and endpoint",
        ),
    ],
};
