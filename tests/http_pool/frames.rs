//! A server of HTTP/2 by hand: frames in, frames out, and nothing understood of fields.

use std::collections::VecDeque;

use crate::peer::Peer;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// The code of a reset, or the size of a window.
    pub(crate) fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().expect("four bytes"))
    }
}

/// One connection, seen from the server. It answers pings and settings by itself.
pub(crate) struct Frames {
    peer: Peer,
    /// Answers no pings.
    pub(crate) is_deaf: bool,
    /// What may be sent on the connection.
    pub(crate) window: i64,
    /// What a new stream may be sent.
    pub(crate) stream_window: i64,
    /// Frames that were read while something else was waited for.
    kept: VecDeque<Frame>,
}

impl Frames {
    /// Reads the preface, and says how many streams there may be.
    pub(crate) async fn greet(mut peer: Peer, streams: u32) -> Option<Self> {
        let preface = peer.exactly(PREFACE.len()).await?;
        assert_eq!(preface, PREFACE);
        let mut frames = Self {
            peer,
            is_deaf: false,
            window: 65_535,
            stream_window: 65_535,
            kept: VecDeque::new(),
        };
        frames.allow(streams).await;
        Some(frames)
    }

    /// Says how many streams there may be from now on.
    pub(crate) async fn allow(&mut self, streams: u32) {
        let mut payload = MAX_CONCURRENT_STREAMS.to_be_bytes().to_vec();
        payload.extend(streams.to_be_bytes());
        self.send(SETTINGS, 0, 0, &payload).await;
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len())
            .expect("it is short")
            .to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.peer.say(frame).await
    }

    /// Waits for the next frame that is about a stream; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        self.find(|_| true).await
    }

    /// Waits for a frame about a stream that is like this; the others stay for whoever looks for them.
    async fn find(&mut self, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        if let Some(place) = self.kept.iter().position(&is_it) {
            return self.kept.remove(place);
        }
        loop {
            let frame = self.any().await?;
            if frame.stream == 0 {
                continue;
            }
            if is_it(&frame) {
                return Some(frame);
            }
            self.kept.push_back(frame);
        }
    }

    /// Reads one frame, and minds those that are about the connection.
    async fn any(&mut self) -> Option<Frame> {
        let head = self.peer.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes"));
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload: self.peer.exactly(length).await?,
        };
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                for setting in frame.payload.chunks_exact(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        let size = setting[2..].try_into().expect("four bytes");
                        self.stream_window = i64::from(u32::from_be_bytes(size));
                    }
                }
                self.send(SETTINGS, ACK, 0, &[]).await;
            }
            PING if frame.flags & ACK == 0 && !self.is_deaf => {
                self.send(PING, ACK, 0, &frame.payload).await;
            }
            WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number()),
            _ => {}
        }
        Some(frame)
    }

    /// Returns how many requests have come that nobody has asked for, when the client has answered a ping:
    /// what it sent before that is here.
    pub(crate) async fn requests_beyond(&mut self) -> usize {
        self.send(PING, 0, 0, b"enough ?").await;
        loop {
            let Some(frame) = self.any().await else {
                break;
            };
            if frame.kind == PING && frame.flags & ACK != 0 {
                break;
            }
            if frame.stream > 0 {
                self.kept.push_back(frame);
            }
        }
        let requests = self.kept.iter().filter(|frame| frame.kind == HEADERS);
        requests.count()
    }

    /// Waits for a ping of the client's, which is answered.
    pub(crate) async fn ping(&mut self) -> Option<()> {
        loop {
            let frame = self.any().await?;
            if frame.kind == PING && frame.flags & ACK == 0 {
                return Some(());
            }
            if frame.stream > 0 {
                self.kept.push_back(frame);
            }
        }
    }

    /// Waits for the head of a request; returns its stream.
    pub(crate) async fn request(&mut self) -> Option<u32> {
        let frame = self.find(|frame| frame.kind == HEADERS).await?;
        Some(frame.stream)
    }

    /// Waits until the client has reset this stream; returns the code.
    pub(crate) async fn reset_of(&mut self, stream: u32) -> Option<u32> {
        let is_reset = |frame: &Frame| frame.kind == RST_STREAM && frame.stream == stream;
        Some(self.find(is_reset).await?.number())
    }

    /// Answers with 200, and nothing more for now.
    pub(crate) async fn head(&mut self, stream: u32) {
        // `:status: 200`, from the static table.
        self.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
    }

    /// Answers with 200 and this text.
    pub(crate) async fn answer(&mut self, stream: u32, text: &str) {
        self.head(stream).await;
        self.send(DATA, END_STREAM, stream, text.as_bytes()).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Says that what came behind this stream was not looked at.
    pub(crate) async fn go_away(&mut self, last: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(NO_ERROR.to_be_bytes());
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    /// Sends so much of a body as the windows have room for, waiting for credit of the connection; returns
    /// early if the client resets the stream. Then waits for that; false if the connection ends before.
    pub(crate) async fn pour_until_reset(&mut self, stream: u32, bytes: usize) -> bool {
        let mut left = bytes;
        while left > 0 {
            if self.window <= 0 {
                let Some(frame) = self.any().await else {
                    return false;
                };
                if frame.kind == RST_STREAM && frame.stream == stream {
                    return true;
                }
                if frame.stream > 0 {
                    self.kept.push_back(frame);
                }
                continue;
            }
            let room = usize::try_from(self.window).expect("it is positive");
            let part = left.min(room).min(16_384);
            self.send(DATA, 0, stream, &vec![7; part]).await;
            self.window -= part as i64;
            left -= part;
        }
        self.reset_of(stream).await.is_some()
    }

    /// Answers every request with its stream, until the end.
    pub(crate) async fn serve(mut self) {
        while let Some(stream) = self.request().await {
            self.answer(stream, &stream.to_string()).await;
        }
    }

    /// Waits until the client has closed the connection; returns with which code it went away, if it said that,
    /// and whether the [stream](Peer::farewell) was ended as well.
    pub(crate) async fn farewell(mut self) -> (Option<u32>, bool) {
        while let Some(frame) = self.any().await {
            if frame.kind == GOAWAY {
                let code = frame.payload[4..8].try_into().expect("four bytes");
                return (Some(u32::from_be_bytes(code)), self.peer.farewell().await);
            }
        }
        (None, self.peer.farewell().await)
    }

    /// Waits until the client has closed the connection.
    pub(crate) async fn end(self) {
        self.peer.end().await;
    }
}
