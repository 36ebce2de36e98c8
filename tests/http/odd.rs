//! Bodies of any make: in pieces of any size, which are bytes or are not, with a length or without one, that wait, fail
//! or panic in the middle; where hyper copies what it sends, and where it does not.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::TRAILER;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use quoit_net::http::Incoming;
use tests::http_client::Client;
use tests::{Dice, Serve};

use crate::support::{narrow, one_core};

/// What a body does next.
#[derive(Debug)]
enum Step {
    Data(Lump),
    Trailers,
    Waits,
    Fails,
    Panics,
}

/// A piece, in one part or in some.
#[derive(Debug)]
struct Lump(VecDeque<Bytes>);

impl Buf for Lump {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |first| first)
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let first = self.0.front_mut().expect("so much is there");
            let part = count.min(first.len());
            first.advance(part);
            count -= part;
            if first.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

#[derive(Debug)]
struct Odd {
    steps: VecDeque<Step>,
    /// It says that it is at its end before it is asked for more.
    tells: bool,
    /// It says how long it is.
    is_exact: bool,
}

impl Odd {
    fn small() -> Self {
        let small = Lump([Bytes::from_static(b"small")].into());
        Self {
            steps: [Step::Data(small)].into(),
            tells: true,
            is_exact: true,
        }
    }

    fn of(seed: u64) -> Self {
        /// Pieces are handed out whole up to so many bytes, and copied or not.
        const PART: usize = 64 * 1024;
        let mut dice = Dice::new(seed);
        let mut made = 0_usize;
        let mut bytes = |length| -> Bytes {
            let places = made..made + length;
            made += length;
            places.map(|place| (place * 31 % 251) as u8).collect()
        };
        let mut steps = VecDeque::new();
        for _ in 0..dice.below(5) {
            let some = [dice.below(100), dice.below(5 * PART), dice.below(5 * PART)];
            let edges = [0, PART - 1, PART, PART + 1, 2 * PART];
            let length = dice.one_of(&[&some[..], &edges].concat());
            let count = 1 + dice.below(3);
            let parts = (0..count).map(|part| bytes((length + part) / count));
            steps.push_back(Step::Data(Lump(
                parts.filter(|part| !part.is_empty()).collect(),
            )));
            if dice.one_in(4) {
                steps.push_back(Step::Waits);
            }
        }
        match dice.below(6) {
            0 => steps.push_back(Step::Trailers),
            1 => steps.push_back(Step::Fails),
            2 => steps.push_back(Step::Panics),
            _ => {}
        }
        Self {
            steps,
            tells: dice.flip(),
            is_exact: dice.flip(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let lumps = self.steps.iter().filter_map(|step| match step {
            Step::Data(lump) => Some(&lump.0),
            _ => None,
        });
        lumps.flatten().flatten().copied().collect()
    }

    fn breaks(&self) -> bool {
        matches!(self.steps.back(), Some(Step::Fails | Step::Panics))
    }
}

impl Body for Odd {
    type Data = Lump;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Lump>, &'static str>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(lump)) => Some(Ok(Frame::data(lump))),
            Some(Step::Trailers) => {
                let fields = [(TRAILER, HeaderValue::from_static("none"))];
                Some(Ok(Frame::trailers(HeaderMap::from_iter(fields))))
            }
            Some(Step::Waits) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Fails) => Some(Err("it fails")),
            Some(Step::Panics) => panic!("it panics"),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.tells && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_exact {
            true => SizeHint::with_exact(self.bytes().len() as u64),
            false => SizeHint::default(),
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Odd>, String> {
    let seed = request.uri().path().strip_prefix("/odd/");
    Ok(Response::new(match seed {
        None => Odd::small(),
        Some(seed) => Odd::of(seed.parse().expect("a number")),
    }))
}

/// Asks for a body, and checks what comes.
fn comes_as_it_is(client: &mut Client, seed: u64) {
    let body = Odd::of(seed);
    let whole = body.bytes();
    let asks = [("1.1", ""), ("1.0", ""), ("1.1", "connection: close\r\n")];
    let (version, fields) = Dice::new(!seed).one_of(&asks);
    client.send(format!(
        "GET /odd/{seed} HTTP/{version}\r\nhost: test\r\n{fields}\r\n"
    ));
    let Ok(Some(head)) = client.try_head() else {
        assert!(body.breaks(), "{seed}");
        return;
    };
    let length = head.field("content-length");
    if body.is_exact {
        assert_eq!(length, Some(&*whole.len().to_string()), "{seed}");
    }
    let mut came = Vec::new();
    let is_marked = length.is_some() || head.field("transfer-encoding").is_some();
    let has_ended = if is_marked {
        let read = client.body(&head, |part| came.extend_from_slice(part));
        read.is_ok()
    } else {
        // It ends with its connection.
        let read = client.exactly(u64::MAX, &mut |part| came.extend_from_slice(part));
        read.is_err() && !body.breaks()
    };
    if has_ended {
        assert!(came == whole, "{seed}: {} of {}", came.len(), whole.len());
        // Whoever has as much as was announced need not hear of what comes then.
        assert!(!body.breaks() || length.is_some(), "{seed}");
    } else {
        assert!(body.breaks(), "{seed}: {} of {}", came.len(), whole.len());
        assert!(whole.starts_with(&came), "{seed}: {}", came.len());
    }
    if !body.breaks() && (version, fields) == ("1.1", "") {
        assert_eq!(client.get("/small").text(), "small", "{seed}");
    }
}

#[test]
fn bodies_of_any_make_come_as_they_are() {
    /// So many connections with small answers, and hyper copies what is sent on the next.
    const MANY: usize = 64;
    let server = one_core().options(narrow()).serve_boxed(answer);
    let server = server.expect("a server");
    let clients = (0..3 * MANY).map(|number| {
        let mut client = match number % 2 {
            0 => Client::connect(server.local_addr()),
            _ => Client::connect_narrow(server.local_addr()),
        };
        assert_eq!(client.get("/small").text(), "small");
        client
    });
    // All are there before the first is sent more.
    let clients: Vec<_> = clients.collect();
    for (mut client, seed) in clients.into_iter().zip(0..) {
        comes_as_it_is(&mut client, seed);
    }
}
