//! What an error of the service means for us: try again, start the iterator anew, or give up with a code.

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use wellspring_domain::ports::StoreError;

/// Longest text of the service that is repeated.
const TEXT_CHARS_MAX: usize = 300;

/// What a failed call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The service asks to slow down, or nothing is known of the outcome: the same call may succeed later.
    Again(String),
    /// The iterator is too old: take a new one.
    ExpiredIterator,
    /// What was asked for does not fit what is stored: a sequence number of another stream, a bad token.
    InvalidArgument(String),
    /// There is no such stream or shard.
    NotFound(String),
    /// The stream exists already, or is being changed.
    InUse(String),
    /// It will not succeed until somebody changes something.
    Refused {
        /// Reason code.
        code: &'static str,
        /// The service's text.
        cause: String,
    },
}

const ACCESS_DENIED: &str = "KINESIS_ACCESS_DENIED";
const REQUEST_REFUSED: &str = "KINESIS_REQUEST_REFUSED";

/// Error names that end a call for want of rights.
const DENIED: [&str; 10] = [
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "KMSAccessDeniedException",
    "MissingAuthenticationTokenException",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// Error names that pass by themselves, whatever the status.
const PASSING: [&str; 9] = [
    "InternalFailure",
    "InternalFailureException",
    "KMSThrottlingException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "RequestExpired",
];

/// Classifies an error of any operation.
pub(super) fn classify<E>(error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(context) => {
            let service = context.err();
            by_name(
                service.code().unwrap_or_default(),
                service.message().unwrap_or_default(),
                context.raw().status().as_u16(),
            )
        }
        SdkError::ResponseError(context) => {
            by_name("", &chain(error), context.raw().status().as_u16())
        }
        SdkError::ConstructionFailure(_) => Fault::Refused {
            code: REQUEST_REFUSED,
            cause: chain(error),
        },
        SdkError::TimeoutError(_) => Fault::Again("no answer in time".to_owned()),
        _no_answer => Fault::Again(chain(error)),
    }
}

/// The decision for an error name, its text and the status of the answer.
fn by_name(name: &str, text: &str, status: u16) -> Fault {
    let said = || match (name, text) {
        ("", "") => format!("HTTP {status}"),
        (name, text) => shortened(format!("{name} {text}").trim()),
    };
    match name {
        _ if PASSING.contains(&name) => Fault::Again(said()),
        _ if DENIED.contains(&name) => Fault::Refused {
            code: ACCESS_DENIED,
            cause: said(),
        },
        "ExpiredIteratorException" => Fault::ExpiredIterator,
        "ResourceNotFoundException" => Fault::NotFound(said()),
        "ResourceInUseException" => Fault::InUse(said()),
        "InvalidArgumentException" => Fault::InvalidArgument(said()),
        // An answer that is no answer (a proxy's page, a broken body) says nothing about the outcome.
        _ if status >= 500 || status == 429 || status < 400 => Fault::Again(said()),
        _ => Fault::Refused {
            code: REQUEST_REFUSED,
            cause: said(),
        },
    }
}

/// The error's texts from the outside in. Requests and credentials are no part of them.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    shortened(&text)
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

impl Fault {
    /// The error for callers, when the call is not tried again.
    pub(super) fn into_store_error(self, operation: &'static str, stream: &str) -> StoreError {
        let refused = |code, cause| StoreError::Refused {
            code,
            key: stream.to_owned(),
            cause: format!("{operation}: {cause}"),
        };
        match self {
            Fault::Again(cause) | Fault::InUse(cause) => StoreError::Unavailable {
                operation,
                key: stream.to_owned(),
                cause,
            },
            Fault::ExpiredIterator => StoreError::Unavailable {
                operation,
                key: stream.to_owned(),
                cause: "the iterator expired".to_owned(),
            },
            Fault::NotFound(cause) => refused("KINESIS_STREAM_NOT_FOUND", cause),
            Fault::InvalidArgument(cause) => refused(REQUEST_REFUSED, cause),
            Fault::Refused { code, cause } => refused(code, cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttles_and_failures_pass_and_missing_rights_do_not() {
        let again = |name, status| matches!(by_name(name, "x", status), Fault::Again(_));
        for name in PASSING {
            assert!(again(name, 400), "{name}");
        }
        for status in [200, 429, 500, 502, 503] {
            assert!(again("", status), "{status}");
        }
        for name in DENIED {
            let error = by_name(name, "x", 400).into_store_error("put records", "s");
            assert_eq!(error.code(), ACCESS_DENIED, "{name}");
        }
        let code = |name, status| {
            by_name(name, "", status)
                .into_store_error("put", "s")
                .code()
        };
        assert_eq!(
            code("ResourceNotFoundException", 400),
            "KINESIS_STREAM_NOT_FOUND"
        );
        assert_eq!(code("InvalidArgumentException", 400), REQUEST_REFUSED);
        assert_eq!(code("ValidationException", 400), REQUEST_REFUSED);
        assert_eq!(code("", 413), REQUEST_REFUSED);
        assert_eq!(code("ResourceInUseException", 400), "STORE_UNAVAILABLE");
    }

    #[test]
    fn long_texts_of_the_service_are_cut() {
        let Fault::Again(text) = by_name("", &"x".repeat(5_000), 500) else {
            panic!("a 500 passes");
        };
        assert_eq!(text.chars().count(), TEXT_CHARS_MAX);
    }
}
