//! Line ends, the white space around them, and what is no request line.

use crate::case::{all, answered, cases, ok, refused};

cases! {
    // --- before the request line ---

    "RFC 9112, 2.2" an_empty_line_before_a_request:
        "\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n" => answered("GET / []");
    "RFC 9112, 2.2" empty_lines_before_a_request:
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n" => answered("GET / []");
    "RFC 9112, 2.2" an_empty_line_after_a_body:
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nab\r\nGET /b HTTP/1.1\r\nhost: test\r\n\r\n"
        => all([ok("POST / [ab]"), ok("GET /b []")]);
    "RFC 9112, 3" a_space_before_a_request:
        " GET / HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" a_carriage_return_before_a_request:
        "\rGET / HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);

    // --- the request line ---

    "RFC 9112, 3" a_method_alone: "GET\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" two_spaces_after_the_method:
        "GET  / HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" two_spaces_after_the_target:
        "GET /  HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" tabs_in_the_request_line:
        "GET\t/\tHTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" a_space_after_the_version:
        "GET / HTTP/1.1 \r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" a_word_after_the_version:
        "GET / HTTP/1.1 more\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" a_request_line_that_is_a_field: "host: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" an_answer_instead_of_a_request:
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" a_hello_of_tls:
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" bytes_without_sense: b"\0\x01\x02\xff\xfe\r\n\r\n" => refused(&[400]);

    // --- line ends ---

    "RFC 9112, 2.2" line_feeds_alone_end_lines:
        "GET / HTTP/1.1\nhost: test\n\n" => answered("GET / []");
    "RFC 9112, 2.2" a_bare_carriage_return_in_the_request_line:
        "GET /\r HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" a_bare_carriage_return_after_the_version:
        "GET / HTTP/1.1\rhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" two_carriage_returns_after_the_version:
        "GET / HTTP/1.1\r\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" a_bare_carriage_return_in_a_name:
        "GET / HTTP/1.1\r\nhost: test\r\nx-fi\reld: a\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" a_bare_carriage_return_in_a_value:
        "GET / HTTP/1.1\r\nhost: test\r\nx-field: a\rb\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" a_bare_carriage_return_before_a_colon:
        "GET / HTTP/1.1\r\nhost: test\r\nx-field\r: a\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" two_carriage_returns_after_a_value:
        "GET / HTTP/1.1\r\nhost: test\r\nx-field: a\r\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" a_bare_carriage_return_that_hides_a_field:
        "GET / HTTP/1.1\r\nhost: test\r\nx-field: a\rcontent-length: 5\r\n\r\nhello"
        => refused(&[400]);
    "RFC 9112, 2.2" a_carriage_return_instead_of_the_last_line:
        "GET / HTTP/1.1\r\nhost: test\r\n\rGET /b HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);

    // --- between the request line and the fields ---

    "RFC 9112, 2.2" a_space_before_the_first_field:
        "GET / HTTP/1.1\r\n host: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" a_tab_before_the_first_field:
        "GET / HTTP/1.1\r\n\thost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 2.2" a_line_of_white_space_before_the_first_field:
        "GET / HTTP/1.1\r\n \r\nhost: test\r\n\r\n" => refused(&[400]);
}
