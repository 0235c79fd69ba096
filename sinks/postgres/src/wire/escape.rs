//! Escapes: any text as a field of a text COPY, which ends at a tab or a newline.
//!
//! Source: PostgreSQL documentation, COPY, "Text Format".

/// How many bytes are looked at in one step while nothing needs an escape: a few instructions where the compiler has vectors.
const STEP: usize = 32;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Why bytes cannot be a field of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotText {
    /// They are not UTF-8.
    Encoding,
    /// They hold the character 0, which PostgreSQL's text cannot.
    Nul,
    /// They hold half a surrogate pair, which is no character, or the character 0, as an escape of JSON.
    Escape,
}

/// Appends `text` as a field. What was appended before an error is to be taken back.
pub(super) fn escape(body: &mut Vec<u8>, text: &str) -> Result<(), NotText> {
    let mut rest = text.as_bytes();
    loop {
        let Some((plain, behind)) = rest.split_at_checked(plain_prefix(rest)) else { return Ok(()) };
        body.extend_from_slice(plain);
        let Some((special, behind)) = behind.split_first() else { return Ok(()) };
        push(body, *special)?;
        rest = behind;
    }
}

/// Appends bytes as a field of a `bytea` column: `\x` and two digits each, the backslash escaped.
pub(super) fn escape_hex(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(b"\\\\x");
    body.extend(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| HEX.get(usize::from(digit))));
}

/// Appends what a string of JSON says, given the text between its quotes.
pub(super) fn escape_json_string(body: &mut Vec<u8>, inside: &str) -> Result<(), NotText> {
    let mut rest = inside;
    while let Some((plain, behind)) = rest.split_once('\\') {
        escape(body, plain)?;
        rest = unescape(body, behind)?;
    }
    escape(body, rest)
}

/// How many bytes from the start need no escape.
fn plain_prefix(bytes: &[u8]) -> usize {
    let is_plain = |step: &&[u8]| !step.iter().fold(false, |any, byte| any | is_special(*byte));
    let steps = STEP * bytes.chunks_exact(STEP).take_while(is_plain).count();
    let rest = bytes.get(steps..).unwrap_or_default();
    steps + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

const fn is_special(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | b'\r' | b'\\')
}

/// Appends one byte, escaped if need be.
fn push(body: &mut Vec<u8>, byte: u8) -> Result<(), NotText> {
    match byte {
        0 => return Err(NotText::Nul),
        b'\t' => body.extend_from_slice(b"\\t"),
        b'\n' => body.extend_from_slice(b"\\n"),
        b'\r' => body.extend_from_slice(b"\\r"),
        b'\\' => body.extend_from_slice(b"\\\\"),
        plain => body.push(plain),
    }
    Ok(())
}

/// Appends the character that an escape of JSON stands for, given what follows its backslash; gives what follows it.
fn unescape<'a>(body: &mut Vec<u8>, behind: &'a str) -> Result<&'a str, NotText> {
    let mut characters = behind.chars();
    match characters.next().ok_or(NotText::Escape)? {
        'b' => push(body, 8)?,
        'f' => push(body, 12)?,
        'n' => push(body, b'\n')?,
        'r' => push(body, b'\r')?,
        't' => push(body, b'\t')?,
        'u' => {
            let (character, rest) = unescape_unicode(characters.as_str()).ok_or(NotText::Escape)?;
            escape(body, character.encode_utf8(&mut [0; 4]))?;
            return Ok(rest);
        }
        // The reader of the JSON has let pass only a quote, a slash and a backslash.
        same => escape(body, same.encode_utf8(&mut [0; 4]))?,
    }
    Ok(characters.as_str())
}

/// The character of one `\u`, or of two that are a surrogate pair; gives what follows. None for half a pair and for 0.
fn unescape_unicode(digits: &str) -> Option<(char, &str)> {
    let (first, rest) = hex_unit(digits)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first).filter(|character| *character != '\0').map(|character| (character, rest));
    }
    let (second, rest) = hex_unit(rest.strip_prefix("\\u")?)?;
    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low)?, rest))
}

fn hex_unit(digits: &str) -> Option<(u32, &str)> {
    let (digits, rest) = digits.split_at_checked(4)?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}
