//! A `tower` service as the handler of a server.

use std::future::{Future, poll_fn};
use std::io;

use http::{Request, Response};
use http_body::Body;
use quoit::CoreId;
use tower_service::Service;

use super::{BoxError, Builder, Incoming, Listen, Server};

impl<A: Listen> Builder<A> {
    /// Starts the server with a [`Service`]: it is cloned to every core, and for each request.
    ///
    /// A request waits until its clone is ready ([`Service::poll_ready`]), as part of its handler: it is
    /// cancelled like one, and the handler timeout holds for both. Whoever waits on a connection of
    /// HTTP/1 is not read from meanwhile, so a service that is not ready slows its clients down. An error
    /// of either is answered as a handler's is, with 500.
    ///
    /// ```no_run
    /// use std::convert::Infallible;
    /// use std::future::{Ready, ready};
    /// use std::task::{Context, Poll};
    /// use http::{Request, Response};
    /// use quoit_net::http::{Incoming, Server};
    /// use tower_service::Service;
    ///
    /// #[derive(Clone)]
    /// struct Hello;
    ///
    /// impl Service<Request<Incoming>> for Hello {
    ///     type Response = Response<String>;
    ///     type Error = Infallible;
    ///     type Future = Ready<Result<Response<String>, Infallible>>;
    ///
    ///     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
    ///         Poll::Ready(Ok(()))
    ///     }
    ///
    ///     fn call(&mut self, request: Request<Incoming>) -> Self::Future {
    ///         ready(Ok(Response::new(format!("hello, {}\n", request.uri()))))
    ///     }
    /// }
    ///
    /// let server = Server::bind("127.0.0.1:8080").serve_service(Hello)?;
    /// # Ok::<_, std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Builder::serve`].
    pub fn serve_service<S, B>(self, service: S) -> io::Result<Server>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError> + 'static,
        S::Future: 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        self.serve_service_with(move |_| {
            let service = service.clone();
            async move { Ok(service) }
        })
    }

    /// Starts the server with a [`Service`] that is made on each core, with state that stays there, and
    /// cloned for each request.
    ///
    /// # Errors
    ///
    /// As for [`Builder::serve_with`].
    pub fn serve_service_with<M, P, S, B>(self, make: M) -> io::Result<Server>
    where
        M: Fn(CoreId) -> P + Clone + Send + 'static,
        P: Future<Output = io::Result<S>> + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<BoxError> + 'static,
        S::Future: 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        self.serve_with(move |core| {
            let made = make(core);
            async move {
                let service = made.await?;
                Ok(move |request| ask(service.clone(), request))
            }
        })
    }
}

/// Asks a clone of its own: what is ready is the clone, and not the service.
async fn ask<S, B>(mut service: S, request: Request<Incoming>) -> Result<Response<B>, S::Error>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}
