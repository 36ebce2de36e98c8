//! RFC 9113, section 4.3, and RFC 7541: field blocks.
//!
//! A block that cannot be decoded leaves both tables in doubt: it is always a connection error, of the
//! type COMPRESSION_ERROR. hyper calls it PROTOCOL_ERROR.

use crate::cases;
use crate::client::Client;
use crate::codes::*;
use crate::hpack;

/// GET http /, from the static table (RFC 7541, appendix A).
const INDEXED: [u8; 3] = [0x82, 0x86, 0x84];

/// A GET, and then these bytes of a field block.
fn then(rest: &[u8]) -> Vec<u8> {
    [&INDEXED[..], rest].concat()
}

/// A field with this value as its string literal, raw.
fn value(literal: &[u8]) -> Vec<u8> {
    then(&[b"\x00\x01x", literal].concat())
}

impl Client {
    /// Sends a field block as a whole GET on stream 1.
    fn block(&mut self, block: &[u8]) -> &mut Self {
        self.frame(HEADERS, WHOLE, 1, block)
    }
}

cases! {
    // RFC 9113, section 4.3.
    "4.3" s4_3_block_that_cannot_be_decoded: |c| c.block(b"\x40") => ends_with_or_unspecific(COMPRESSION_ERROR);
    "4.3" s4_3_block_cut_short: |c| c.block(&then(b"\x00\x05ab")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "4.3" s4_3_trailers_that_cannot_be_decoded: |c| c.post(1, "/echo").frame(HEADERS, WHOLE, 1, b"\x80") => ends_with_or_unspecific(COMPRESSION_ERROR);
    "4.3" s4_3_block_of_a_refused_stream_is_decoded: |c| refused_then_indexed(&mut c) => answers(3, 200);

    // RFC 7541, section 2.3.3: indices.
    "HPACK 2.3.3" h2_3_3_static_table_is_known: |c| c.block(&INDEXED) => answers(1, 200);
    "HPACK 2.3.3" h2_3_3_index_past_both_tables: |c| c.block(&then(b"\xbe")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 2.3.3" h2_3_3_index_far_past_both_tables: |c| c.block(&then(b"\xff\xff\x03")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 2.3.3" h2_3_3_name_past_both_tables: |c| c.block(&then(b"\x7f\x00\x01x")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 6.1" h6_1_index_zero: |c| c.block(&then(b"\x80")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 2.3.2" h2_3_2_entry_of_the_dynamic_table_is_known: |c| c.block(&then(b"\x40\x01x\x01y\xbe")) => answers(1, 200);
    "HPACK 2.3.2" h2_3_2_entry_lasts_for_the_next_block:
        |c| c.block(b"\x82\x86\x44\x06/named").frame(HEADERS, WHOLE, 3, b"\x82\x86\xbe\x01\x04test") => answers_on(3, "GET http://test/named");

    // Section 4.2 and 6.3: the size of the table.
    "HPACK 4.2" h4_2_update_at_the_start: |c| c.block(&[&b"\x20"[..], &INDEXED].concat()) => answers(1, 200);
    "HPACK 4.2" h4_2_two_updates_at_the_start: |c| c.block(&[&b"\x20\x3f\xe1\x1f"[..], &INDEXED].concat()) => answers(1, 200);
    "HPACK 4.2" h4_2_update_at_the_end: |c| c.block(&then(b"\x20")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 4.2" h4_2_update_in_the_middle: |c| c.block(b"\x82\x20\x86\x84") => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 6.3" h6_3_update_to_the_limit: |c| c.block(&[&b"\x3f\xe1\x1f"[..], &INDEXED].concat()) => answers(1, 200);
    "HPACK 6.3" h6_3_update_past_the_limit: |c| c.block(&[&b"\x3f\xe2\x1f"[..], &INDEXED].concat()) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 4.3" h4_3_update_to_nothing_empties_the_table:
        |c| c.block(&then(b"\x40\x01x\x01y")).frame(HEADERS, WHOLE, 3, b"\x20\x82\x86\x84\xbe") => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 4.4" h4_4_entry_larger_than_the_table_empties_it: |c| too_large_for_the_table(&mut c) => ends_with_or_unspecific(COMPRESSION_ERROR);

    // Section 5.1: integers.
    "HPACK 5.1" h5_1_index_without_end: |c| c.block(&then(&[0xff; 20])) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.1" h5_1_length_past_all_numbers:
        |c| c.block(&value(b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.1" h5_1_length_past_the_block: |c| c.block(&value(b"\x7f\x10abc")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.1" h5_1_long_form_of_a_small_number: |c| c.block(&then(&[&b"\x00\x01x\x7f\x00"[..], &[b'v'; 127]].concat())) => answers(1, 200);

    // Section 5.2: strings.
    "HPACK 5.2" h5_2_huffman_is_read: |c| c.block(b"\x82\x86\x04\x82\x60\x7f\x01\x04test") => answers_with_path_in_huffman(1);
    "HPACK 5.2" h5_2_padding_of_ones: |c| c.block(&value(b"\x81\x1f")) => answers(1, 200);
    "HPACK 5.2" h5_2_padding_of_eight_bits: |c| c.block(&value(b"\x82\x1f\xff")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.2" h5_2_padding_of_sixteen_bits: |c| c.block(&value(b"\x83\x1f\xff\xff")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.2" h5_2_padding_of_zeros: |c| c.block(&value(b"\x81\x18")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.2" h5_2_padding_with_one_zero: |c| c.block(&value(b"\x81\x1e")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.2" h5_2_end_of_string_in_a_string: |c| c.block(&value(b"\x84\xff\xff\xff\xff")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.2" h5_2_end_of_string_behind_a_letter: |c| c.block(&value(b"\x85\x1f\xff\xff\xff\xff")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 5.2" h5_2_empty_huffman: |c| c.block(&value(b"\x80")) => answers(1, 200);

    // Section 6.2: the three literals.
    "HPACK 6.2.1" h6_2_1_literal_with_indexing: |c| c.block(b"\x82\x86\x84\x41\x04test") => answers(1, 200);
    "HPACK 6.2.2" h6_2_2_literal_without_indexing: |c| c.block(b"\x82\x86\x84\x01\x04test") => answers(1, 200);
    "HPACK 6.2.3" h6_2_3_literal_never_indexed: |c| c.block(b"\x82\x86\x84\x11\x04test") => answers(1, 200);
    "HPACK 6.2.2" h6_2_2_literal_is_not_indexed: |c| c.block(&then(b"\x00\x01x\x01y\xbe")) => ends_with_or_unspecific(COMPRESSION_ERROR);
    "HPACK 6.2.3" h6_2_3_literal_is_never_indexed: |c| c.block(&then(b"\x10\x01x\x01y\xbe")) => ends_with_or_unspecific(COMPRESSION_ERROR);
}

impl Client {
    fn answers_on(&mut self, stream: u32, text: &str) {
        self.answers_with(stream, text);
    }

    fn answers_with_path_in_huffman(&mut self, stream: u32) {
        self.answers_with(stream, "GET http://test/a");
    }
}

/// A malformed request puts its path into the table, and a good one takes it from there.
fn refused_then_indexed(client: &mut Client) {
    client.block(b"\x82\x86\x44\x06/named\x00\x0akeep-alive\x01y");
    client.resets(1, PROTOCOL_ERROR);
    client.frame(HEADERS, WHOLE, 3, b"\x82\x86\xbe");
}

/// Puts an entry into the table, then one that has no room in it: nothing is left there.
fn too_large_for_the_table(client: &mut Client) {
    let mut block = then(b"\x40\x01x\x01y\x40\x01x");
    hpack::integer(&mut block, 0, 7, 5000);
    block.extend_from_slice(&[b'v'; 5000]);
    client.block(&block);
    client.frame(HEADERS, WHOLE, 3, &then(b"\xbe"));
}
