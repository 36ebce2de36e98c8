//! One turn of one contender: its server is started, asked, weighed and ended.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::contenders::Contender;
use super::load::{self, Told};
use super::program::{Processors, Server};
use super::scenarios::Load;
use super::{Figure, Turn};
use crate::process::{Usage, resident};

/// How turns are taken.
#[derive(Debug)]
pub struct Rounds {
    /// The processors of this program.
    pub processors: Processors,
    /// The processor of the servers.
    pub server_core: usize,
    /// The processor of what asks them.
    pub load_core: usize,
    /// How many seconds each turn takes.
    pub seconds: f64,
    /// How many seconds idle connections are watched.
    pub idle_seconds: u64,
    /// How often a micro program takes its figure in one turn.
    pub micro_rounds: u32,
    /// The program that asks echo servers.
    pub echo_load: PathBuf,
}

impl Rounds {
    /// Takes a turn.
    ///
    /// # Errors
    ///
    /// Why there are no figures: a program is missing or fails, or an answer was wrong.
    pub fn turn(&self, contender: &Contender, load: &Load) -> io::Result<Turn> {
        if let Load::Micro(name) = load {
            return self.micro(contender, name);
        }
        let mut command = Command::new(&contender.program);
        command.args(contender.arguments);
        let server = self.processors.server(self.server_core, &mut command)?;
        let taken = self.take(&server, load);
        taken.map_err(|error| server.failure(error))
    }

    fn take(&self, server: &Server, load: &Load) -> io::Result<Turn> {
        let mut turn = match *load {
            // It is weighed while they are held.
            Load::Idle { connections } => return self.idle(server, connections),
            Load::Http1 { connections, depth } => self.http1(server, connections, depth)?,
            Load::Http2 {
                connections,
                streams,
            } => self.http2(server, connections, streams)?,
            Load::Closed {
                connections,
                size,
                depth,
            } => self.echo(
                server,
                &[
                    ("--connections", connections),
                    ("--size", size),
                    ("--depth", depth),
                    // With one connection, both sides sleep in turn: what is measured is the server's sleep alone.
                    ("--spin", if connections == 1 { SPIN } else { 0 }),
                ],
                None,
            )?,
            Load::Open { rate } => self.echo(server, &[("--rate", rate as usize)], None)?,
            Load::Churn { connections } => {
                self.echo(server, &[("--connections", connections)], Some("--churn"))?
            }
            Load::Micro(_) => unreachable!("it has no server"),
        };
        turn.figures
            .insert(Figure::Resident, mebi(resident(server.process())?));
        Ok(turn)
    }

    /// Returns the command that asks an echo server.
    fn echo_load(&self, server: &Server) -> Command {
        let mut command = Command::new(&self.echo_load);
        command.args(["--connect", &server.address().to_string()]);
        command.args(["--core", &self.load_core.to_string()]);
        command
    }

    fn echo(
        &self,
        server: &Server,
        numbers: &[(&str, usize)],
        flag: Option<&str>,
    ) -> io::Result<Turn> {
        let mut command = self.echo_load(server);
        command.args(["--seconds", &self.seconds.to_string()]);
        command.args(["--server", &server.process().to_string()]);
        for (name, number) in numbers {
            command.args([OsStr::new(name), OsStr::new(&number.to_string())]);
        }
        command.args(flag);
        let said = self
            .processors
            .output(Some(self.load_core), &mut command, self.patience())?;
        Ok(load::echo(&said).map_err(io::Error::other)?.turn)
    }

    /// Holds connections that say nothing, and looks what that costs.
    fn idle(&self, server: &Server, connections: usize) -> io::Result<Turn> {
        let process = server.process();
        let before = resident(process)?;
        let mut command = self.echo_load(server);
        command.args(["--idle", "--connections", &connections.to_string()]);
        let held = self.processors.held(self.load_core, &mut command, HOLD)?;
        // The server has answered the last of them, and is on its way to sleep: that is not idle yet.
        if held.ends_within(Duration::from_millis(200))? {
            return Err(held.early_end());
        }
        let (usage, held_memory) = (Usage::of(process)?, resident(process)?);
        if held.ends_within(Duration::from_secs(self.idle_seconds))? {
            return Err(held.early_end());
        }
        let used = Usage::of(process)?.since(usage);
        let more = held_memory.saturating_sub(before);
        let figures = [
            (
                Figure::PerConnection,
                more as f64 / 1024.0 / connections as f64,
            ),
            (Figure::IdleSwitches, used.switches as f64),
            (
                Figure::IdleCpu,
                used.cpu.as_secs_f64() * 1e3 / self.idle_seconds as f64,
            ),
            (Figure::Resident, mebi(held_memory)),
        ];
        Ok(Turn {
            figures: figures.into(),
            curve: Vec::new(),
        })
    }

    fn http1(&self, server: &Server, connections: usize, depth: usize) -> io::Result<Turn> {
        let mut script = tempfile::NamedTempFile::new()?;
        script.write_all(load::wrk_script(depth).as_bytes())?;
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--connections", &connections.to_string()]);
        // wrk takes whole seconds.
        command.args(["--duration", &format!("{}s", self.seconds.ceil())]);
        command.arg("--script").arg(script.path());
        command.arg(format!("http://{}/", server.address()));
        let read = if depth == 1 {
            load::wrk
        } else {
            load::wrk_pipelined
        };
        self.http(server, &mut command, read)
    }

    fn http2(&self, server: &Server, connections: usize, streams: usize) -> io::Result<Turn> {
        let mut command = Command::new("h2load");
        command.args(["--threads", "1", "--clients", &connections.to_string()]);
        command.args(["--max-concurrent-streams", &streams.to_string()]);
        command.args(["--duration", &self.seconds.ceil().to_string()]);
        command.arg(format!("http://{}/", server.address()));
        self.http(server, &mut command, load::h2load)
    }

    fn http(
        &self,
        server: &Server,
        command: &mut Command,
        read: fn(&str) -> Result<Told, String>,
    ) -> io::Result<Turn> {
        probe(server.address())?;
        let before = Usage::of(server.process())?;
        let said = self
            .processors
            .output(Some(self.load_core), command, self.patience())?;
        let used = Usage::of(server.process())?.since(before);
        probe(server.address())?;
        let mut told = read(&said).map_err(io::Error::other)?;
        told.turn
            .figures
            .insert(Figure::Cpu, used.cpu.as_secs_f64() * 1e6 / told.requests);
        told.turn
            .figures
            .insert(Figure::Switches, used.switches as f64 / told.requests);
        Ok(told.turn)
    }

    /// Of parts that need memory for very many at once, the first rounds of a process tell how the kernel hands that
    /// out: they are taken as often as the programs take them by themselves, if more than one round is.
    fn micro_rounds_of(&self, name: &str) -> u32 {
        match name.contains("_100k") && self.micro_rounds > 1 {
            true => self.micro_rounds.max(MICRO_ROUNDS),
            false => self.micro_rounds,
        }
    }

    fn micro(&self, contender: &Contender, name: &str) -> io::Result<Turn> {
        let mut command = Command::new(&contender.program);
        command.args(contender.arguments);
        command.args([name, "--rounds", &self.micro_rounds_of(name).to_string()]);
        let said = self.processors.output(None, &mut command, MICRO)?;
        load::micro(&said, name).map_err(io::Error::other)
    }

    /// Returns the parts that a micro program knows.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub fn parts(&self, contender: &Contender) -> io::Result<Vec<String>> {
        let mut command = Command::new(&contender.program);
        let said = self.processors.output(None, command.arg("--list"), MICRO)?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    }

    /// How long a load may take, on a machine that does other things as well.
    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.seconds) + Duration::from_secs(30)
    }
}

/// Asks an HTTP server once, whether it says what all of them say. The programs that make load look at the status, and
/// one of them at the length.
fn probe(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        let read = stream.read(&mut bytes);
        answer.extend_from_slice(&bytes[..*read.as_ref().unwrap_or(&0)]);
        let body = answer.strip_suffix(load::HELLO.as_bytes());
        let is_whole = body.is_some_and(|head| head.ends_with(b"\r\n\r\n"));
        if is_whole && answer.starts_with(b"HTTP/1.1 200") {
            return Ok(());
        }
        let ends = match read {
            Ok(0) => ", and closes",
            Ok(_) if is_whole => "",
            Ok(_) => continue,
            Err(_) => ", and then nothing",
        };
        let answer = String::from_utf8_lossy(&answer);
        let what = format!("the server answers {answer:?}{ends}");
        return Err(io::Error::other(what));
    }
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// For how many microseconds the load looks on before it parks, so that it hardly does.
const SPIN: usize = 1_000;

/// How long thousands of connections may take to be made.
const HOLD: Duration = Duration::from_secs(60);

/// How often a micro program takes a figure if it is told nothing.
const MICRO_ROUNDS: u32 = 7;

/// How long a part may take.
const MICRO: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Asks a server that says this, and closes.
    fn asked(says: &'static str) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let serves = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            // All of the question first: what lies there unread would make the end a reset.
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                question.push(byte[0]);
            }
            stream.write_all(says.as_bytes())
        });
        let told = probe(address);
        serves.join().expect("it does not panic")?;
        told
    }

    #[test]
    fn an_answer_that_is_another_is_told_with_what_it_was() {
        let right = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nHello, world!";
        asked(right).expect("it is right");
        for (says, ends) in [
            ("HTTP/1.1 500 Oh\r\n\r\nHello, world!", "Hello, world!\""),
            (
                "HTTP/1.1 200 OK\r\n\r\nHello, wOrld!",
                "Hello, wOrld!\", and closes",
            ),
            ("", "\"\", and closes"),
        ] {
            let told = asked(says).expect_err(says).to_string();
            assert!(
                told.starts_with("the server answers \"") && told.ends_with(ends),
                "{told}"
            );
        }
    }
}
