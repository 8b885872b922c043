//! Cursor positions. The protocol counts Unicode code points, Rust strings count bytes.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#cursor-pos-and-unicode-offsets>.

/// The byte offset in `code` of the `cursor`-th code point; the end of `code` when `cursor` is absent or beyond it.
pub fn byte_offset(code: &str, cursor: Option<usize>) -> usize {
    cursor
        .and_then(|cursor| code.char_indices().nth(cursor))
        .map_or(code.len(), |(offset, _)| offset)
}

/// How many code points of `code` start before byte `offset`: the inverse of [`byte_offset`].
pub fn code_points(code: &str, offset: usize) -> usize {
    code.char_indices()
        .take_while(|(start, _)| *start < offset)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_points_are_not_bytes() {
        let code = "a\u{e9}\u{1d41a}b";
        let table = [(0, 0), (1, 1), (2, 3), (3, 7), (4, 8)];
        for (cursor, offset) in table {
            assert_eq!(byte_offset(code, Some(cursor)), offset);
            assert_eq!(code_points(code, offset), cursor);
        }
        assert_eq!(byte_offset(code, None), 8);
        assert_eq!(byte_offset(code, Some(99)), 8);
        assert_eq!(code_points(code, 99), 4);
    }
}
