//! A server whose handler is boxed. Each handler of a type of its own makes a server of its own out of
//! generic code, which takes the compiler a second: too long for a hundred tests that are about something
//! else.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use quoit_net::http::{Builder, Incoming, Listen, Server};

type BoxError = Box<dyn Error + Send + Sync>;
type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>;
type Answer = Pin<Box<dyn Future<Output = Result<Response<AnyBody>, BoxError>>>>;

/// A handler of any type.
trait AnyHandler: Send {
    fn answer(&self, request: Request<Incoming>) -> Answer;
    fn copy(&self) -> Box<dyn AnyHandler>;
}

struct Handler<H>(H);

impl<H, F, B, E> AnyHandler for Handler<H>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
    E: Into<BoxError> + 'static,
{
    fn answer(&self, request: Request<Incoming>) -> Answer {
        let answer = (self.0)(request);
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into)?;
            Ok(answer.map(boxed))
        })
    }

    fn copy(&self) -> Box<dyn AnyHandler> {
        Box::new(Self(self.0.clone()))
    }
}

fn boxed<B: Body<Error: Into<BoxError>> + 'static>(body: B) -> AnyBody {
    Box::pin(Plain(Box::pin(body)))
}

/// A body of bytes, which says of itself what the one inside does.
struct Plain<B>(Pin<Box<B>>);

impl<B: Body<Error: Into<BoxError>>> Body for Plain<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.0.as_mut().poll_frame(cx));
        let whole = |mut data: B::Data| data.copy_to_bytes(data.remaining());
        Poll::Ready(frame.map(|frame| Ok(frame.map_err(Into::into)?.map_data(whole))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Clone for Box<dyn AnyHandler> {
    fn clone(&self) -> Self {
        self.as_ref().copy()
    }
}

/// Servers that are built once.
pub trait Serve {
    /// As [`Builder::serve`].
    ///
    /// # Errors
    ///
    /// The same.
    fn serve_boxed<H, F, B, E>(self, handler: H) -> io::Result<Server>
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, E>> + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
        E: Into<BoxError> + 'static;
}

impl<A: Listen> Serve for Builder<A> {
    fn serve_boxed<H, F, B, E>(self, handler: H) -> io::Result<Server>
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, E>> + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
        E: Into<BoxError> + 'static,
    {
        serve(self, Box::new(Handler(handler)))
    }
}

fn serve<A: Listen>(builder: Builder<A>, handler: Box<dyn AnyHandler>) -> io::Result<Server> {
    builder.serve(move |request| handler.answer(request))
}
