//! JSON read and written the slow, obvious way: the judge of the fast parser.
//!
//! One function per grammar rule over a list of characters. Nothing here is shared with the program.

/// A value; numbers are kept in the text form the contract writes (0.1).
#[derive(Clone, Debug, PartialEq)]
pub enum Slow {
    /// `null`, `true`, `false`, or a number in canonical text.
    Word(String),
    /// Decoded text.
    Text(String),
    /// Items.
    List(Vec<Slow>),
    /// Members in source order.
    Object(Vec<(String, Slow)>),
}

/// Deepest nesting of lists and objects the contract's limits allow.
const NESTING_MAX: usize = 64;

/// Reads one value that fills the text.
pub fn parse(bytes: &[u8]) -> Option<Slow> {
    let chars: Vec<char> = std::str::from_utf8(bytes).ok()?.chars().collect();
    let mut at = 0;
    space(&chars, &mut at);
    let value = value(&chars, &mut at, 0)?;
    space(&chars, &mut at);
    (at == chars.len()).then_some(value)
}

fn space(chars: &[char], at: &mut usize) {
    while matches!(chars.get(*at), Some(' ' | '\t' | '\n' | '\r')) {
        *at += 1;
    }
}

fn take(chars: &[char], at: &mut usize, wanted: char) -> bool {
    let found = chars.get(*at) == Some(&wanted);
    *at += usize::from(found);
    found
}

fn value(chars: &[char], at: &mut usize, nesting: usize) -> Option<Slow> {
    match *chars.get(*at)? {
        '{' => object(chars, at, nesting + 1),
        '[' => list(chars, at, nesting + 1),
        '"' => text(chars, at).map(Slow::Text),
        '-' | '0'..='9' => number(chars, at).map(Slow::Word),
        _ => ["null", "true", "false"].into_iter().find_map(|word| {
            let end = *at + word.len();
            let here: String = chars.get(*at..end)?.iter().collect();
            (here == word).then(|| {
                *at = end;
                Slow::Word(word.to_owned())
            })
        }),
    }
}

fn list(chars: &[char], at: &mut usize, nesting: usize) -> Option<Slow> {
    if nesting > NESTING_MAX {
        return None;
    }
    *at += 1;
    let mut items = Vec::new();
    space(chars, at);
    if take(chars, at, ']') {
        return Some(Slow::List(items));
    }
    loop {
        space(chars, at);
        items.push(value(chars, at, nesting)?);
        space(chars, at);
        if take(chars, at, ']') {
            return Some(Slow::List(items));
        }
        if !take(chars, at, ',') {
            return None;
        }
    }
}

fn object(chars: &[char], at: &mut usize, nesting: usize) -> Option<Slow> {
    if nesting > NESTING_MAX {
        return None;
    }
    *at += 1;
    let mut members: Vec<(String, Slow)> = Vec::new();
    space(chars, at);
    if take(chars, at, '}') {
        return Some(Slow::Object(members));
    }
    loop {
        space(chars, at);
        let key = text(chars, at)?;
        space(chars, at);
        if !take(chars, at, ':') {
            return None;
        }
        space(chars, at);
        let value = value(chars, at, nesting)?;
        // Two readers would see two events.
        if members.iter().any(|(known, _)| *known == key) {
            return None;
        }
        members.push((key, value));
        space(chars, at);
        if take(chars, at, '}') {
            return Some(Slow::Object(members));
        }
        if !take(chars, at, ',') {
            return None;
        }
    }
}

fn text(chars: &[char], at: &mut usize) -> Option<String> {
    if !take(chars, at, '"') {
        return None;
    }
    let mut text = String::new();
    loop {
        let next = *chars.get(*at)?;
        *at += 1;
        match next {
            '"' => return Some(text),
            '\\' => text.push(escape(chars, at)?),
            '\0'..='\u{1f}' => return None,
            plain => text.push(plain),
        }
    }
}

fn escape(chars: &[char], at: &mut usize) -> Option<char> {
    let letter = *chars.get(*at)?;
    *at += 1;
    Some(match letter {
        '"' | '\\' | '/' => letter,
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => {
            let first = unit(chars, at)?;
            if !(0xD800..0xE000).contains(&first) {
                return char::from_u32(first);
            }
            if !(take(chars, at, '\\') && take(chars, at, 'u')) {
                return None;
            }
            let second = unit(chars, at)?;
            let pair = [u16::try_from(first).ok()?, u16::try_from(second).ok()?];
            let mut decoded = char::decode_utf16(pair);
            let character = decoded.next()?.ok()?;
            return decoded.next().is_none().then_some(character);
        }
        _ => return None,
    })
}

fn unit(chars: &[char], at: &mut usize) -> Option<u32> {
    let digits = chars.get(*at..*at + 4)?;
    *at += 4;
    let mut digits = digits.iter().map(|digit| digit.to_digit(16));
    digits.try_fold(0, |sum, digit| Some(sum * 16 + digit?))
}

fn number(chars: &[char], at: &mut usize) -> Option<String> {
    let start = *at;
    take(chars, at, '-');
    let whole = digits(chars, at);
    if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    let mut float = false;
    if take(chars, at, '.') {
        float = true;
        if digits(chars, at).is_empty() {
            return None;
        }
    }
    if matches!(chars.get(*at), Some('e' | 'E')) {
        float = true;
        *at += 1;
        let _sign = take(chars, at, '+') || take(chars, at, '-');
        if digits(chars, at).is_empty() {
            return None;
        }
    }
    let written: String = chars[start..*at].iter().collect();
    match (float, written.as_str()) {
        (false, "-0") => Some("0".to_owned()),
        (false, _) => Some(written),
        (true, _) => float_text(written.parse().ok()?),
    }
}

fn digits(chars: &[char], at: &mut usize) -> String {
    let start = *at;
    while matches!(chars.get(*at), Some('0'..='9')) {
        *at += 1;
    }
    chars[start..*at].iter().collect()
}

/// The layout of contract 0.1, from the standard library's scientific notation.
pub fn float_text(value: f64) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let direction = if exponent < 0 { '-' } else { '+' };
        return Some(format!("{sign}{mantissa}e{direction}{:02}", exponent.abs()));
    }
    let plain = format!("{}", value.abs());
    let point = if plain.contains('.') { "" } else { ".0" };
    Some(format!("{sign}{plain}{point}"))
}

impl Slow {
    /// Compact text; `sorted` orders the keys of every object by code point.
    pub fn text(&self, sorted: bool) -> String {
        match self {
            Slow::Word(word) => word.clone(),
            Slow::Text(text) => quoted(text),
            Slow::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.text(sorted)).collect();
                format!("[{}]", items.join(","))
            }
            Slow::Object(members) => {
                let mut members: Vec<&(String, Slow)> = members.iter().collect();
                if sorted {
                    members.sort_by(|a, b| a.0.chars().cmp(b.0.chars()));
                }
                let member = |(key, value): &&(String, Slow)| {
                    format!("{}:{}", quoted(key), value.text(sorted))
                };
                let members: Vec<String> = members.iter().map(member).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Slow> {
        let Slow::Object(members) = self else {
            return None;
        };
        let mut own = members.iter().filter(|(key, _)| key == name);
        own.next().map(|(_, value)| value)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
    out
}
