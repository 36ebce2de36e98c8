//! A server inside a program, with a live page of what it does.

use std::{convert::Infallible, io, time::Duration};

use http::Response;
use quoit_net::http::{Page, Server};

fn main() -> io::Result<()> {
    let server = Server::bind("127.0.0.1:8080")
        .page(Page::at("/_quoit/"))
        .serve(|request| async move {
            let text = format!("you asked for {}\n", request.uri());
            Ok::<_, Infallible>(Response::new(text))
        })?;
    println!("listening on http://{}", server.local_addr());
    // The program's own main loop: until Enter is pressed.
    io::stdin().read_line(&mut String::new())?;
    println!("{}", server.shutdown(Duration::from_secs(10))?);
    Ok(())
}
