//! Field blocks as small as they can be made: literals that are never indexed (RFC 7541, section
//! 6.2.2), and of answers the status alone.

/// The fields of a GET that every server understands.
pub(crate) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "test"),
];

/// The fields of a request for a path.
pub(crate) fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
    ]
}

/// Fields, and then some more.
pub(crate) fn with<'a>(
    fields: &[(&'a str, &'a str)],
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    [fields, more].concat()
}

/// A GET without the field of this name.
pub(crate) fn get_without(name: &str) -> Vec<(&'static str, &'static str)> {
    GET.into_iter()
        .filter(|(field, _)| *field != name)
        .collect()
}

/// A GET in which a field has another value.
pub(crate) fn get_but<'a>(name: &str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let put = |(field, old)| (field, if field == name { value } else { old });
    GET.into_iter().map(put).collect()
}

/// Encodes fields as literals without indexing, without Huffman coding.
pub(crate) fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, 0, 7, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Appends an integer (section 5.1): `first` holds the bits above its prefix.
pub(crate) fn integer(block: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let limit = (1 << prefix) - 1;
    if value < limit {
        block.push(first | value as u8);
        return;
    }
    block.push(first | limit as u8);
    let mut rest = value - limit;
    while rest >= 0x80 {
        block.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// Reads the status, which is the first field of an answer.
pub(crate) fn status(block: &[u8]) -> u16 {
    let mut at = 0;
    // Updates of the table's size (section 6.3) may stand before it.
    while block[at] & 0xe0 == 0x20 {
        let long = block[at] & 0x1f == 0x1f;
        at += 1;
        while long && block[at] & 0x80 != 0 {
            at += 1;
        }
        at += usize::from(long);
    }
    match block[at] {
        // The static table has seven of them (appendix A).
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // A literal with a name of the static table: any of those seven.
        literal if matches!(literal & 0xf, 8..=14) => {
            let length = usize::from(block[at + 1] & 0x7f);
            let text = &block[at + 2..at + 2 + length];
            if block[at + 1] & 0x80 == 0 {
                text.iter()
                    .fold(0, |n, digit| n * 10 + u16::from(digit - b'0'))
            } else {
                huffman_number(text)
            }
        }
        other => panic!("an answer begins with its status, and not with {other:#x}"),
    }
}

/// Reads three digits in Huffman's code (appendix B): five bits for 0, 1 and 2, six for the others.
fn huffman_number(text: &[u8]) -> u16 {
    let bits: Vec<u16> = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)))
        .collect();
    let mut at = 0;
    let mut number = 0;
    for _ in 0..3 {
        let take = |count: usize| bits[at..at + count].iter().fold(0, |n, bit| n << 1 | bit);
        let short = take(5);
        let digit = if short <= 2 {
            at += 5;
            short
        } else {
            let long = take(6);
            at += 6;
            long - 0b011001 + 3
        };
        number = number * 10 + digit;
    }
    number
}
