//! What an answer of S3 means for the caller (contract 3.8, 4.2): try again, absent, or refused for good.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use wellspring_domain::ports::StoreError;

/// Why a request did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The same request may succeed later. It may also have been carried out.
    Passing(String),
    /// There is no such object.
    Absent,
    /// A condition on the object did not hold.
    Precondition,
    /// Another conditional write was under way.
    Conflict,
    /// The range begins behind the end of the object.
    OutOfRange,
    /// Refused for good.
    Refused {
        /// Stable reason code.
        code: &'static str,
        /// Why, and the way out.
        cause: String,
    },
}

impl Fault {
    /// As the port says it. Faults that are answers of their own are handled before.
    pub(super) fn into_store_error(self, operation: &'static str, key: String) -> StoreError {
        let cause = match self {
            Fault::Refused { code, cause } => return StoreError::Refused { code, key, cause },
            Fault::Passing(cause) => cause,
            Fault::Absent => "the object does not exist".to_owned(),
            Fault::Precondition => "the object was changed meanwhile".to_owned(),
            Fault::Conflict => "other writers were faster every time".to_owned(),
            Fault::OutOfRange => "the object is shorter than it was".to_owned(),
        };
        StoreError::Unavailable {
            operation,
            key,
            cause,
        }
    }
}

/// Sorts what the client says into the faults we know. Bodies and headers are never quoted: they may hold
/// what was signed.
pub(super) fn fault_of<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E>) -> Fault {
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let (code, message) = (answer.err().code(), answer.err().message());
            of_answer(
                status,
                code.unwrap_or_default(),
                message.unwrap_or_default(),
            )
        }
        SdkError::TimeoutError(_) => Fault::Passing("no answer in time".to_owned()),
        SdkError::ResponseError(answer) => of_answer(answer.raw().status().as_u16(), "", ""),
        SdkError::DispatchFailure(failure) => {
            let why = failure.as_connector_error();
            Fault::Passing(why.map_or_else(
                || "the request could not be sent".to_owned(),
                |error| chain(error),
            ))
        }
        // Nothing was sent: the request itself makes no sense.
        _ => Fault::Refused {
            code: "S3_REQUEST_REFUSED",
            cause: "the request could not be made from what was given".to_owned(),
        },
    }
}

/// The texts of an error and its causes; connectors speak of addresses and sockets only.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

fn of_answer(status: u16, code: &str, message: &str) -> Fault {
    let said = match (code, message) {
        ("", _) => format!("HTTP {status}"),
        (code, "") => format!("HTTP {status} {code}"),
        (code, message) => format!("HTTP {status} {code}: {message}"),
    };
    let refused = |code: &'static str, way_out: &str| Fault::Refused {
        code,
        cause: format!("{said}; {way_out}"),
    };
    match (status, code) {
        (_, "NoSuchBucket") => refused(
            "S3_BUCKET_MISSING",
            "create the bucket, or name another one",
        ),
        (404, _) => Fault::Absent,
        (412, _) => Fault::Precondition,
        (409, "ConditionalRequestConflict" | "OperationAborted") => Fault::Conflict,
        (416, _) => Fault::OutOfRange,
        (_, "SlowDown" | "RequestTimeout" | "Throttling" | "RequestLimitExceeded") => {
            Fault::Passing(said)
        }
        (429 | 500..=599, _) => Fault::Passing(said),
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken") => {
            // The message of these can quote what was signed.
            Fault::Refused {
                code: "S3_CREDENTIALS_REFUSED",
                cause: format!(
                    "HTTP {status} {code}; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY against the endpoint"
                ),
            }
        }
        (301 | 307, _)
        | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => refused(
            "S3_REGION_WRONG",
            "set the region of the bucket (wiring.object_store.region)",
        ),
        (401 | 403, _) => refused(
            "S3_ACCESS_DENIED",
            "give this key the right to read, write and list below the root",
        ),
        _ => refused("S3_REQUEST_REFUSED", "the store does not do what was asked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(status: u16, code: &str) -> String {
        let fault = of_answer(status, code, "words");
        match fault.into_store_error("get", "k".to_owned()) {
            StoreError::Refused { code, .. } => code.to_owned(),
            other => other.code().to_owned(),
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_is_refused_for_good() {
        for (status, code) in [
            (500, "InternalError"),
            (503, "SlowDown"),
            (429, ""),
            (502, ""),
        ] {
            assert_eq!(
                code_of(status, code),
                "STORE_UNAVAILABLE",
                "{status} {code}"
            );
        }
        for (status, code, ours) in [
            (403, "AccessDenied", "S3_ACCESS_DENIED"),
            (403, "", "S3_ACCESS_DENIED"),
            (403, "InvalidAccessKeyId", "S3_CREDENTIALS_REFUSED"),
            (403, "SignatureDoesNotMatch", "S3_CREDENTIALS_REFUSED"),
            (404, "NoSuchBucket", "S3_BUCKET_MISSING"),
            (301, "PermanentRedirect", "S3_REGION_WRONG"),
            (400, "AuthorizationHeaderMalformed", "S3_REGION_WRONG"),
            (400, "EntityTooLarge", "S3_REQUEST_REFUSED"),
        ] {
            assert_eq!(code_of(status, code), ours, "{status} {code}");
        }
        assert_eq!(of_answer(404, "NoSuchKey", ""), Fault::Absent);
        assert_eq!(of_answer(404, "", ""), Fault::Absent);
        assert_eq!(
            of_answer(412, "PreconditionFailed", ""),
            Fault::Precondition
        );
        assert_eq!(
            of_answer(409, "ConditionalRequestConflict", ""),
            Fault::Conflict
        );
        assert_eq!(of_answer(416, "InvalidRange", ""), Fault::OutOfRange);
    }

    #[test]
    fn a_refusal_of_credentials_quotes_nothing_that_was_signed() {
        let fault = of_answer(403, "SignatureDoesNotMatch", "StringToSign: AKIAEXAMPLE");
        assert!(!format!("{fault:?}").contains("AKIAEXAMPLE"));
    }
}
