//! HTTP/2 from outside, frame by frame: RFC 9113 and RFC 7541, section by section, and floods.
//!
//! Each case is named for its section. A case that fails says what was sent and which frames came.

mod client;
mod codes;
mod compression;
mod connect;
mod continuation;
mod data;
mod encrypted;
mod extensions;
mod floods;
mod framing;
mod goaway;
mod headers;
mod hpack;
mod messages;
mod ping;
mod preface;
mod priority;
mod pseudo_headers;
mod push_promise;
mod rst_stream;
mod servers;
mod settings;
mod states;
mod streams;
mod unread;
mod window_update;

/// Cases that are one exchange: a section, a name, what is sent, and what must come of it.
macro_rules! cases {
    ($($section:literal $name:ident: |$client:ident| $send:expr => $check:ident($($argument:expr),*);)*) => {$(
        #[test]
        fn $name() {
            let mut $client = $crate::client::Client::open($section);
            $send;
            $client.$check($($argument),*);
        }
    )*};
}
pub(crate) use cases;
