//! Time zones of the world. Only zones without daylight saving time, so that the local times of a
//! world are right on every date since 2020 without a zone database.

/// One IANA zone and its fixed distance to UTC.
pub(super) struct Zone {
    /// IANA name.
    pub(super) tzid: &'static str,
    /// Local time minus UTC.
    pub(super) offset_minutes: i32,
}

const fn zone(tzid: &'static str, offset_minutes: i32) -> Zone {
    Zone {
        tzid,
        offset_minutes,
    }
}

/// The busiest zone first: zones are picked with a skew.
pub(super) const ZONES: [Zone; 24] = [
    zone("Asia/Singapore", 480),
    zone("America/Sao_Paulo", -180),
    zone("Africa/Lagos", 60),
    zone("Asia/Kolkata", 330),
    zone("Asia/Tokyo", 540),
    zone("America/Phoenix", -420),
    zone("Africa/Nairobi", 180),
    zone("America/Bogota", -300),
    zone("Asia/Dubai", 240),
    zone("Asia/Jakarta", 420),
    zone("Africa/Johannesburg", 120),
    zone("America/Argentina/Buenos_Aires", -180),
    zone("Australia/Brisbane", 600),
    zone("Asia/Karachi", 300),
    zone("Africa/Abidjan", 0),
    zone("America/Panama", -300),
    zone("Asia/Kathmandu", 345),
    zone("Asia/Shanghai", 480),
    zone("America/Puerto_Rico", -240),
    zone("Pacific/Honolulu", -600),
    zone("Europe/Istanbul", 180),
    zone("Asia/Bangkok", 420),
    zone("Atlantic/Reykjavik", 0),
    zone("Pacific/Port_Moresby", 600),
];
