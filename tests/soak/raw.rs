//! What hyper's client does not do: requests that are refused, several at once, bodies in chunks that come
//! late, and connections that go on as something else. On a thread, byte by byte.

use std::time::Duration;

use quoit::time::Instant;
use tests::http_client::{Client, pause};
use tests::{Dice, bytes};

use crate::client::{Life, PATIENCE};
use crate::questions::{Question, What};

/// One visit after the other, for as long as the client lives.
pub(crate) fn visits(life: &Life, mut dice: Dice) {
    while Instant::now() < life.until {
        let mut client = Client::connect(life.orders.clear);
        let patience = client.socket().set_read_timeout(Some(PATIENCE));
        patience.expect("an option");
        match dice.below(5) {
            0 => refused(life, &mut client, &mut dice),
            1 => several(life, &mut client, &mut dice),
            2 => in_chunks(life, &mut client, &mut dice),
            3 => upgraded(life, client, &mut dice),
            // Nothing is asked.
            _ => {}
        }
        pause(Duration::from_micros(1 + dice.below(20_000) as u64));
    }
}

/// What no handler sees: too large, or for nobody.
fn refused(life: &Life, client: &mut Client, dice: &mut Dice) {
    let Some(number) = life.number() else { return };
    let (head, status) = match dice.flip() {
        true => ("host: test\r\ncontent-length: 1000000000\r\n", 413),
        false => ("", 400),
    };
    client.send(format!("POST /sum/{number}/0 HTTP/1.1\r\n{head}\r\n"));
    assert_eq!(client.answer().status(), status);
    println!("@answered {number} {status}");
}

/// Requests that are all sent before the first is answered.
fn several(life: &Life, client: &mut Client, dice: &mut Dice) {
    let number = |_| life.number();
    let numbers: Vec<u64> = (0..1 + dice.below(5)).map_while(number).collect();
    let text = |number| {
        let size = dice.below(3_000);
        Question::drawn_for_text(dice, number, size)
    };
    let all: Vec<_> = numbers.into_iter().map(text).collect();
    let request = |question: &Question| {
        let body = question.body();
        let head = format!(
            "POST {question} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    };
    client.send(all.iter().map(request).collect::<Vec<_>>().concat());
    for question in all {
        compare(client, question);
    }
}

/// A body in chunks, with pauses.
fn in_chunks(life: &Life, client: &mut Client, dice: &mut Dice) {
    let Some(number) = life.number() else { return };
    let what = dice.one_of(&[What::Sum, What::Mirror]);
    // What comes back meanwhile has to fit into the sockets.
    let size = dice.below(20_000);
    let question = Question { what, number, size };
    client.ask(
        "POST",
        &question.to_string(),
        "transfer-encoding: chunked\r\n",
    );
    let body = question.body();
    let (first, second) = body.split_at(dice.below(size + 1));
    for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
        pause(Duration::from_micros(1 + dice.below(3_000) as u64));
        client.send([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
    }
    client.send("0\r\n\r\n");
    compare(client, question);
}

/// Another protocol: what is sent comes back.
fn upgraded(life: &Life, mut client: Client, dice: &mut Dice) {
    let Some(number) = life.number() else { return };
    let (what, size) = (What::Upgrade, 0);
    let question = Question { what, number, size };
    client.ask(
        "GET",
        &question.to_string(),
        "connection: upgrade\r\nupgrade: echo\r\n",
    );
    assert_eq!(client.head().status, question.status());
    for round in 0..dice.below(5) as u64 {
        let sent = bytes(1 + dice.below(20_000), number + round);
        client.send(&sent);
        let mut came = Vec::new();
        let take = &mut |part: &[u8]| came.extend_from_slice(part);
        client
            .exactly(sent.len() as u64, take)
            .expect("it comes back");
        assert!(came == sent, "{question}: other bytes came back");
    }
    if dice.flip() {
        let ended = client.socket().shutdown(std::net::Shutdown::Write);
        ended.expect("connected");
        client.ends();
    }
    println!("@answered {number} {}", question.status());
}

fn compare(client: &mut Client, question: Question) {
    let answer = client.answer();
    assert_eq!(answer.status(), question.status(), "{question}");
    assert!(
        answer.body == question.answer(),
        "{question}: another answer"
    );
    println!("@answered {} {}", question.number, answer.status());
}
