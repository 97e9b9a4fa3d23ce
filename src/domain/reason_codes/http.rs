//! Codes of the HTTP edge (contracts 7.1, 7.2).

use super::{Chapter, CodeClass::*, Speaker::*, row};

/// The HTTP edge.
pub const CHAPTER: Chapter = Chapter {
    title: "HTTP",
    codes: &[
        row(
            "AUTH_MODE_UNKNOWN",
            &[Http],
            FixTheCause,
            "the profile names an auth mode that does not exist (401)",
            "use `disabled`, `api_key` or `service_token`",
        ),
        row(
            "AUTH_MODE_UNSUPPORTED",
            &[Http],
            FixTheCause,
            "the auth mode `jwt` is known and not supported (401)",
            "use `api_key` or `service_token`",
        ),
        row(
            "AUTH_SERVICE_TOKEN_SECRET_MISSING",
            &[Http],
            FixTheCause,
            "service tokens are wanted and no secret is set (401)",
            "set `IG_SERVICE_TOKEN_SECRETS` for the gate",
        ),
        row(
            "BATCH_TOO_LARGE",
            &[Http],
            FixTheCause,
            "a batch holds more events than the limit (413)",
            "send smaller batches; the detail holds the limit",
        ),
        row(
            "BODY_INCOMPLETE",
            &[Http],
            SendAgain,
            "the connection ended before the body did (400); nothing was admitted",
            "send the same again",
        ),
        row(
            "BODY_LENGTH_INVALID",
            &[Http],
            FixTheCause,
            "Content-Length is not a number (400)",
            "fix the client",
        ),
        row(
            "BODY_TOO_LARGE",
            &[Http],
            FixTheCause,
            "the body is larger than the limit (413)",
            "send smaller bodies; the detail holds the limit",
        ),
        row(
            "GATE_BUSY",
            &[Http],
            WaitAndRetry,
            "no room for more events, bytes or connections (429, 503)",
            "wait for `Retry-After`, then send the same again",
        ),
        row(
            "INVALID_JSON",
            &[Http],
            FixTheCause,
            "the body, or an item of a batch, is not JSON (400)",
            "fix the client; duplicate keys and NaN are not accepted",
        ),
        row(
            "MISSING_QUERY",
            &[Http],
            FixTheCause,
            "a lookup without a key (400)",
            "give `event_id`, `receipt_id` or `dedupe_key`",
        ),
        row(
            "NOT_FOUND",
            &[Http],
            FixTheCause,
            "there is no such route (404)",
            "check method and path in `docs/http_api.md`",
        ),
        row(
            "RATE_LIMITED",
            &[Http],
            WaitAndRetry,
            "more pushes than `push_rate_limit_per_minute` within a minute (429)",
            "wait for `Retry-After`, or raise the limit",
        ),
        row(
            "RECEIPT_UNAVAILABLE",
            &[Http],
            SendAgain,
            "the event is decided, its receipt could not be rendered (500)",
            "look it up later, or send the same again: the decision stands",
        ),
        row(
            "REQUEST_TIMEOUT",
            &[Http],
            SendAgain,
            "the body did not arrive in time (408); nothing was admitted",
            "send the same again",
        ),
        row(
            "UNAUTHORIZED",
            &[Http],
            FixTheCause,
            "no token, or one that is not accepted (401)",
            "send the token in the header the profile names",
        ),
    ],
};
