//! Requests with numbers: each says what it wants, and holds what comes against its number.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use quoit::{CancelHandle, spawn};
use quoit_net::http::body;
use quoit_pool::http::{Body, Client, Error, RequestBuilder, Response};

use crate::partner::{Kind, Way};
use crate::until;

/// RFC 1950, section 8.2.
pub(crate) fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    // As many as fit into a number before it is reduced.
    for part in bytes.chunks(5_552) {
        for &byte in part {
            a += u32::from(byte);
            b += a;
        }
        a %= 65_521;
        b %= 65_521;
    }
    (b << 16) | a
}

/// What a server sends as the answer to a request of this number: the byte at place n is n, from the number on,
/// modulo 251.
pub(crate) fn much(size: usize, number: u64) -> Vec<u8> {
    let block: Vec<u8> = (0..251)
        .map(|place| ((number + place) % 251) as u8)
        .collect();
    let mut all = block.repeat(size.div_ceil(block.len()));
    all.truncate(size);
    all
}

/// A body that is sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) bytes: Bytes,
    /// It is made while it is sent, in pieces of this size; else it is all there.
    pub(crate) in_pieces_of: Option<usize>,
    /// Cancelled before this piece is made.
    pub(crate) cancels: Option<(usize, CancelHandle)>,
}

impl Sent {
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into(),
            in_pieces_of: None,
            cancels: None,
        }
    }

    pub(crate) fn in_pieces(bytes: Vec<u8>, size: usize) -> Self {
        Self {
            in_pieces_of: Some(size),
            ..Self::whole(bytes)
        }
    }
}

/// Somebody who asks one server, and numbers what is asked. Clones share the numbers.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) client: Client,
    pub(crate) way: Way,
    numbers: Rc<Cell<u64>>,
    /// How many bodies are being made.
    making: Rc<Cell<usize>>,
}

/// Counts one who makes a body, until it is dropped.
struct Making(Rc<Cell<usize>>);

impl Drop for Making {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Asker {
    /// Begins to count at `first`: askers of one server have numbers of their own.
    pub(crate) fn new(client: Client, way: &Way, first: u64) -> Self {
        Self {
            client,
            way: way.clone(),
            numbers: Rc::new(Cell::new(first)),
            making: Rc::default(),
        }
    }

    /// Waits until nobody asks any more, as far as this client knows; returns how many connections it keeps.
    pub(crate) async fn at_rest(&self) -> usize {
        let counts = || self.client.pool().counts();
        until("all connections are idle", || {
            let now = counts();
            now.idle == now.connections && now.waiting == 0 && self.making.get() == 0
        })
        .await;
        counts().connections
    }

    /// Closes the pool, of which nothing is left.
    pub(crate) async fn close(&self) {
        let pool = self.client.pool();
        pool.close().await.expect("nobody cancels");
        let counts = pool.counts();
        let left = (counts.connections, counts.idle, counts.waiting);
        assert_eq!(left, (0, 0, 0), "{:?}: {counts:?}", self.way);
    }

    /// Begins the next request; returns its number as well.
    pub(crate) fn request(&self, method: Method, path: &str) -> (RequestBuilder, u64) {
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        let url = format!("{}{path}", self.way.url);
        let request = self.client.request(method, url);
        (request.header("x-number", number), number)
    }

    /// Sends a request, and looks whether the answer is to it.
    async fn send(
        &self,
        (request, number): (RequestBuilder, u64),
        status: StatusCode,
    ) -> Result<Response, Error> {
        let answer = request.send().await?;
        assert_eq!(answer.status(), status, "{number} of {:?}", self.way);
        assert_eq!(answer.version(), self.way.version, "{:?}", self.way);
        let named = answer.headers().get_all("x-number").iter();
        let named: Vec<_> = named.map(|value| value.to_str().expect("text")).collect();
        assert_eq!(named, [number.to_string()], "{:?}", self.way);
        Ok(answer)
    }

    /// Makes a body of what is to be sent.
    pub(crate) fn body_of(&self, sent: Sent) -> Body {
        let Some(size) = sent.in_pieces_of else {
            return sent.bytes.into();
        };
        let (sender, pieces) = body::channel(2);
        self.making.set(self.making.get() + 1);
        let making = Making(Rc::clone(&self.making));
        drop(spawn(async move {
            let making = making;
            for place in 0..sent.bytes.len().div_ceil(size) {
                if let Some((when, handle)) = &sent.cancels
                    && place == *when
                {
                    handle.cancel();
                }
                let end = sent.bytes.len().min((place + 1) * size);
                if sender
                    .send(sent.bytes.slice(place * size..end))
                    .await
                    .is_err()
                {
                    // Nobody wants it any more, or it is given up.
                    break;
                }
            }
            drop((sender, making));
        }));
        pieces.into()
    }

    /// A word, from `/hello` or `/slow`.
    pub(crate) async fn hello(&self, path: &str) -> Result<(), Error> {
        let (request, number) = self.request(Method::GET, path);
        let answer = self.send((request, number), StatusCode::OK).await?;
        assert_eq!(answer.text().await?, format!("hello {number}"));
        Ok(())
    }

    /// What is sent comes back.
    pub(crate) async fn echo(&self, sent: Sent) -> Result<(), Error> {
        let (request, number) = self.request(Method::POST, "/echo");
        let expected = sent.bytes.clone();
        let request = request.body(self.body_of(sent));
        let answer = self.send((request, number), StatusCode::OK).await?;
        let came = answer.bytes().await?;
        let (count, all) = (came.len(), expected.len());
        assert!(came == expected, "{count} of {all} of {:?}", self.way);
        Ok(())
    }

    /// The server says what it has got.
    pub(crate) async fn sum(&self, sent: Sent) -> Result<(), Error> {
        let (request, number) = self.request(Method::POST, "/sum");
        let (length, sum) = (sent.bytes.len(), adler32(&sent.bytes));
        let request = request.header("x-length", length);
        let request = request.body(self.body_of(sent));
        let answer = self.send((request, number), StatusCode::OK).await?;
        assert_eq!(answer.text().await?, format!("{number} {length} {sum}"));
        Ok(())
    }

    /// So many bytes of the number's own.
    pub(crate) async fn much(&self, size: usize) -> Result<(), Error> {
        let (mut answer, number) = self.begin_much(size).await?;
        let mut came = Vec::with_capacity(size);
        while let Some(piece) = answer.chunk().await? {
            came.extend_from_slice(&piece);
        }
        let count = came.len();
        assert!(came == much(size, number), "{count} of {size}");
        Ok(())
    }

    /// As [`much`](Self::much), as far as the head.
    pub(crate) async fn begin_much(&self, size: usize) -> Result<(Response, u64), Error> {
        let (request, number) = self.request(Method::GET, &format!("/much?size={size}"));
        let answer = self.send((request, number), StatusCode::OK).await?;
        Ok((answer, number))
    }

    /// So many bytes, and trailers behind them; returns the trailers.
    pub(crate) async fn much_with_trailers(&self, size: usize) -> Result<HeaderMap, Error> {
        let path = format!("/much?size={size}&sums");
        let (request, number) = self.request(Method::GET, &path);
        let request = request.header("te", "trailers");
        let answer = self.send((request, number), StatusCode::OK).await?;
        let whole = answer.into_body().collect().await?;
        let trailers = whole.trailers().cloned().unwrap_or_default();
        let expected = much(size, number);
        let sum = match self.way.kind {
            Kind::Nginx => format!("of {number}"),
            Kind::Node | Kind::Python => adler32(&expected).to_string(),
        };
        if let Some(told) = trailers.get("x-sum") {
            assert_eq!(told, &sum[..], "{:?}", self.way);
        }
        assert!(whole.to_bytes() == expected, "{:?}", self.way);
        Ok(trailers)
    }

    /// How long it would be.
    pub(crate) async fn head(&self, size: usize) -> Result<(), Error> {
        let asked = self.request(Method::HEAD, &format!("/much?size={size}"));
        let answer = self.send(asked, StatusCode::OK).await?;
        assert_eq!(answer.headers()["content-length"], size.to_string());
        assert_eq!(answer.bytes().await?, "");
        Ok(())
    }

    /// Nothing.
    pub(crate) async fn none(&self) -> Result<(), Error> {
        let asked = self.request(Method::GET, "/none");
        let answer = self.send(asked, StatusCode::NO_CONTENT).await?;
        assert_eq!(answer.bytes().await?, "");
        Ok(())
    }

    /// A word about where it is, which is not followed.
    pub(crate) async fn elsewhere(&self) -> Result<(), Error> {
        let asked = self.request(Method::GET, "/elsewhere");
        let answer = self.send(asked, StatusCode::FOUND).await?;
        let told = answer.headers()["location"].to_str().expect("text");
        assert!(told.ends_with("/hello"), "{told}");
        answer.bytes().await?;
        Ok(())
    }

    /// How many bodies the server took for whole that were not.
    pub(crate) async fn cuts(&self) -> Result<String, Error> {
        let asked = self.request(Method::GET, "/cuts");
        self.send(asked, StatusCode::OK).await?.text().await
    }
}
