//! quoit beside other runtimes and beside a bare ring: all contenders in all scenarios, in turn, and every goal with what
//! came of it, as a table, as JSON and as a page. `benches/run` builds what it needs.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use benches::matrix::contenders::{Discipline, Places, Role, built_comparators};
use benches::matrix::interrupt::Interrupt;
use benches::matrix::machine::Machine;
use benches::matrix::program::{Processors, raise_descriptor_limit};
use benches::matrix::round::Rounds;
use benches::matrix::scenarios::{self, Load, Scale, Scenario};
use benches::matrix::{Entry, Matrix, Row, html, json, table};
use benches::micro::missing as missing_part;
use benches::outcome::{complain, ended, say};
use clap::Parser;
use quoit::time::Instant;

/// Compares quoit with other runtimes and with bare rings, and says which goals are met.
///
/// Echo over TCP, idle connections, HTTP/1.1 (wrk), HTTP/2 (h2load), and the parts of the runtimes one at a time.
///
/// Ctrl-C ends the measuring: the reports are of what was measured until then. Once more, and there are none.
#[derive(Debug, Parser)]
struct Arguments {
    /// The main scenarios, two rounds of half a second: under three minutes.
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name has this in it; may be given more than once.
    #[arg(long)]
    only: Vec<String>,
    /// Lists the scenarios, and measures nothing.
    #[arg(long)]
    list: bool,
    /// How many rounds, instead of 2 (quick) or 5.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: Option<u32>,
    /// How many seconds each turn takes, instead of 0.5 (quick) or 1.25.
    #[arg(long)]
    seconds: Option<f64>,
    /// The processor of the servers.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The processor of what asks them.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Where the programs of the others are.
    #[arg(long, default_value_os_t = built_comparators())]
    comparators: PathBuf,
    /// Writes everything that was measured into a file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes a page with drawings.
    #[arg(long)]
    html: Option<PathBuf>,
}

fn main() -> ExitCode {
    ended("matrix", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let scale = if arguments.quick {
        Scale::Quick
    } else {
        Scale::Full
    };
    let ours = std::env::current_exe()?;
    let ours = ours.parent().ok_or("this program lies in no folder")?;
    let places = Places::new(ours.to_owned(), arguments.comparators.clone());
    let interrupt = Interrupt::listen()?;
    let rounds = rounds(arguments, Processors::until(Some(interrupt.clone()))?, ours)?;
    let mut matrix = Matrix {
        machine: Machine::here(rounds.processors.count()),
        course: String::new(),
        rows: Vec::new(),
        left_out: Vec::new(),
        not_possible: BTreeMap::new(),
    };
    let scenarios = scenarios(scale, &rounds, &places, &mut matrix)?;
    let scenarios = wanted(scenarios, &arguments.only, &matrix.not_possible)?;
    if arguments.list {
        for scenario in &scenarios {
            say(format!("{:<36} {}\n", scenario.name, scenario.title))?;
        }
        return Ok(());
    }
    are_built(&scenarios, &places, &rounds)?;
    // Before all is measured, not after it.
    let reports = can_be_written(&[&arguments.json, &arguments.html])?;

    let is_part = |scenario: &Scenario| matches!(scenario.load, Load::Micro(_));
    let parts = if scenarios.iter().any(is_part) {
        parts(&rounds, &places, &mut matrix.left_out)
    } else {
        Parts::new()
    };
    let usual = if arguments.quick { 2 } else { 5 };
    let count = arguments.rounds.unwrap_or(usual) as usize;
    let begun = Instant::now();
    let mut told = Ok(());
    for (index, scenario) in scenarios.iter().enumerate() {
        let (number, title) = (index + 1, &scenario.title);
        complain(format_args!("[{number}/{}] {title}", scenarios.len()));
        let count = turns(&scenario.load, count);
        let left_out = &mut matrix.left_out;
        let taken = (&interrupt, &rounds, count);
        let Some(row) = measure(scenario, taken, (&places, &parts), left_out) else {
            break;
        };
        let said = say(format!("{}\n", table::row(&row)));
        if reports == 0 {
            // Nobody would ever know what comes of the others.
            said?;
        } else {
            told = told.and(said);
        }
        matrix.rows.push(row);
    }
    let missed = &scenarios[matrix.rows.len()..];
    for scenario in missed {
        let why = "interrupted before it was measured".to_owned();
        matrix.not_possible.insert(scenario.name.clone(), why);
    }
    let interrupted = interrupt.came().then(|| {
        let measured = matrix.rows.len();
        format!(
            "interrupted: {measured} of {} scenarios were measured",
            scenarios.len()
        )
    });
    matrix.left_out.extend(interrupted.clone());
    let took = begun.elapsed().as_secs();
    let seconds = rounds.seconds;
    let were = if count == 1 { "round" } else { "rounds" };
    matrix.course = format!(
        "{count} {were} of {seconds} s (idle connections and parts: fewer; HTTP: whole seconds); servers on processor {}, load on processor {}; {took} s in all",
        arguments.server_core, arguments.load_core
    );
    told = told.and_then(|()| say(table::summary(&matrix)));
    // Each is tried, whatever becomes of the other.
    let json = arguments.json.as_ref().map(|path| {
        let text = serde_json::to_string_pretty(&json::whole(&matrix));
        write(path, &text.expect("its keys are text"))
    });
    let html = arguments
        .html
        .as_ref()
        .map(|path| write(path, &html::page(&matrix)));
    json.into_iter().chain(html).collect::<Result<(), _>>()?;
    told?;
    let failed = failures(&matrix.rows);
    if !failed.is_empty() {
        return Err(format!("quoit failed in {}", failed.join(", ")).into());
    }
    interrupted.map_or(Ok(()), |what| Err(what.into()))
}

/// Returns the scenarios that somebody wants.
fn wanted(
    mut known: Vec<Scenario>,
    only: &[String],
    not_possible: &BTreeMap<String, String>,
) -> Result<Vec<Scenario>, String> {
    for part in only {
        if known.iter().any(|scenario| scenario.name.contains(part)) {
            continue;
        }
        let mut impossible = not_possible.iter();
        return Err(match impossible.find(|(name, _)| name.contains(part)) {
            Some((name, why)) => format!("{name} cannot be measured here: {why}"),
            None => format!(
                "no scenario has {part:?} in its name: --list lists them, those of a quick run if --quick stands there too"
            ),
        });
    }
    known
        .retain(|scenario| only.is_empty() || only.iter().any(|part| scenario.name.contains(part)));
    Ok(known)
}

/// Looks whether what quoit needs is there. Without the others there is a report, which names them.
fn are_built(scenarios: &[Scenario], places: &Places, rounds: &Rounds) -> Result<(), String> {
    let missing = |program: &str| {
        format!("{program} is not built: `cargo build --release -p benches` does it")
    };
    for scenario in scenarios {
        let discipline = scenario.discipline();
        let (found, _) = places.contenders(discipline);
        let ours = found.iter().any(|contender| contender.role == Role::Ours);
        match discipline {
            Discipline::Echo if !ours => return Err(missing("echo")),
            Discipline::Http if !ours => return Err(missing("http")),
            Discipline::Echo if !rounds.echo_load.is_file() => return Err(missing("echo_load")),
            // Without ours there is no such scenario.
            Discipline::Echo | Discipline::Http | Discipline::Micro => {}
        }
    }
    Ok(())
}

/// Returns where quoit failed, in whichever form.
fn failures(rows: &[Row]) -> Vec<&str> {
    let ours = [Role::Ours, Role::WithOption, Role::Alike];
    let failed = rows.iter().filter(|row| {
        let mut entries = row.entries.iter();
        entries.any(|entry| ours.contains(&entry.role) && entry.failed.is_some())
    });
    failed.map(|row| row.scenario.name.as_str()).collect()
}

fn rounds(arguments: &Arguments, processors: Processors, ours: &Path) -> Result<Rounds, String> {
    let seconds = arguments
        .seconds
        .unwrap_or(if arguments.quick { 0.5 } else { 1.25 });
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("--seconds is between 0.1 and 3600".to_owned());
    }
    let (server, load) = (arguments.server_core, arguments.load_core);
    if server == load {
        return Err(
            "a server and its load on one processor measure each other: name two".to_owned(),
        );
    }
    let known: Vec<_> = processors.numbers().collect();
    for (option, core) in [("--server-core", server), ("--load-core", load)] {
        // A list is made wherever one asks.
        if !known.contains(&core) && !arguments.list {
            return Err(format!(
                "{option}: processor {core} is not among those this process may use, {known:?}; two are needed"
            ));
        }
    }
    Ok(Rounds {
        processors,
        server_core: arguments.server_core,
        load_core: arguments.load_core,
        seconds,
        idle_seconds: if arguments.quick { 1 } else { 5 },
        micro_rounds: if arguments.quick { 1 } else { 3 },
        echo_load: ours.join("echo_load"),
    })
}

/// Returns the scenarios that can be measured here; what cannot is told in the matrix.
fn scenarios(
    scale: Scale,
    rounds: &Rounds,
    places: &Places,
    matrix: &mut Matrix,
) -> Result<Vec<Scenario>, Box<dyn Error>> {
    let limit = raise_descriptor_limit()?;
    let has = [("wrk", "--version"), ("h2load", "--version")]
        .map(|(program, flag)| is_installed(program, flag));
    let left_out = &mut matrix.left_out;
    let mut scenarios = Vec::new();
    for mut scenario in scenarios::all(scale) {
        let missing = match &mut scenario.load {
            Load::Http1 { .. } => (!has[0]).then(|| "wrk is not installed".to_owned()),
            Load::Http2 { .. } => {
                (!has[1]).then(|| "h2load (of nghttp2) is not installed".to_owned())
            }
            Load::Idle { .. } if limit < FEWEST_IDLE + OTHERS => Some(format!(
                "it takes {} descriptors, and {limit} are allowed (`ulimit -Hn`)",
                FEWEST_IDLE + OTHERS
            )),
            Load::Idle { connections } => {
                let most = usize::try_from(limit - OTHERS)?;
                if *connections > most {
                    left_out.push(format!(
                        "only {most} idle connections: the hard limit of descriptors is {limit}"
                    ));
                    *connections = most;
                }
                scenario.title = format!("{connections} idle connections");
                None
            }
            _ => None,
        };
        match missing {
            Some(why) => {
                if let Load::Idle { .. } = scenario.load {
                    left_out.push(format!("{}: {why}", scenario.name));
                }
                matrix.not_possible.insert(scenario.name, why);
            }
            None => scenarios.push(scenario),
        }
    }
    if !has[0] {
        left_out.push("HTTP/1.1: wrk is not installed".to_owned());
    }
    if !has[1] {
        left_out.push("HTTP/2: h2load (of nghttp2) is not installed".to_owned());
    }
    let mut missing = Vec::new();
    for discipline in [Discipline::Echo, Discipline::Http, Discipline::Micro] {
        missing.extend(places.contenders(discipline).1);
    }
    if !missing.is_empty() {
        left_out.push(format!(
            "programs that are not built: {}",
            missing.join(", ")
        ));
    }
    let (micro, _) = places.contenders(Discipline::Micro);
    if let Some(ours) = micro.iter().find(|contender| contender.role == Role::Ours) {
        for scenario in scenarios::micro(&rounds.parts(ours)?, scale) {
            let Load::Micro(part) = &scenario.load else {
                unreachable!("it is a part");
            };
            match missing_part(part, limit) {
                Some(why) => {
                    left_out.push(format!("{}: {why}", scenario.name));
                    matrix.not_possible.insert(scenario.name, why);
                }
                None => scenarios.push(scenario),
            }
        }
    }
    Ok(scenarios)
}

/// How many connections have to say nothing, so that what a server makes once does not count for theirs.
const FEWEST_IDLE: u64 = 500;

/// How many descriptors either end needs beside one for each connection.
const OTHERS: u64 = 200;

/// Returns how many turns each contender takes. Memory hardly varies, and parts take the median of rounds of their own.
fn turns(load: &Load, count: usize) -> usize {
    match load {
        Load::Idle { .. } => count.div_ceil(2),
        Load::Micro(_) => count.min(3),
        _ => count,
    }
}

/// Takes all turns of a scenario; if somebody wants no more, those of the rounds that were whole by then: `None`, if
/// there is none.
fn measure(
    scenario: &Scenario,
    (interrupt, rounds, count): (&Interrupt, &Rounds, usize),
    (places, parts): (&Places, &Parts),
    left_out: &mut Vec<String>,
) -> Option<Row> {
    let (mut contenders, _) = places.contenders(scenario.discipline());
    contenders.retain(|contender| contender.takes.part_in(&scenario.name));
    if let Load::Micro(name) = &scenario.load {
        contenders.retain(|contender| {
            let known = parts.get(contender.name);
            known.is_some_and(|known| known.contains(name))
        });
    }
    let mut entries: Vec<Entry> = contenders
        .iter()
        .map(|contender| Entry {
            name: contender.name.to_owned(),
            role: contender.role,
            turns: Vec::new(),
            failed: None,
        })
        .collect();
    let mut whole = 0;
    'rounds: while whole < count {
        for (contender, entry) in contenders.iter().zip(&mut entries) {
            if entry.failed.is_some() {
                continue;
            }
            let turn = rounds.turn(contender, &scenario.load);
            if interrupt.came() {
                break 'rounds;
            }
            match turn {
                Ok(turn) => entry.turns.push(turn),
                Err(error) => {
                    left_out.push(format!("{} in {}: {error}", contender.name, scenario.name));
                    entry.failed = Some(error.to_string());
                }
            }
        }
        whole += 1;
    }
    for entry in &mut entries {
        entry.turns.truncate(whole);
    }
    (whole > 0).then(|| Row {
        scenario: scenario.clone(),
        entries,
    })
}

/// The parts that contenders know, by the names of these.
type Parts = BTreeMap<&'static str, Vec<String>>;

/// Asks each micro program once which parts it knows. One that does not say so takes part in none.
fn parts(rounds: &Rounds, places: &Places, left_out: &mut Vec<String>) -> Parts {
    let mut parts = Parts::new();
    for contender in places.contenders(Discipline::Micro).0 {
        match rounds.parts(&contender) {
            Ok(known) => drop(parts.insert(contender.name, known)),
            Err(error) => left_out.push(format!("{} in all parts: {error}", contender.name)),
        }
    }
    parts
}

fn is_installed(program: &str, flag: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg(flag)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // wrk says its version and fails.
    command.status().is_ok()
}

/// Looks whether reports can be written, each into a file of its own. Returns how many there are.
fn can_be_written(reports: &[&Option<PathBuf>]) -> Result<usize, String> {
    let mut files = Vec::new();
    let mut count = 0;
    for path in reports.iter().copied().flatten() {
        let opened = OpenOptions::new().append(true).create(true).open(path);
        let about = opened.and_then(|file| file.metadata());
        let about = about.map_err(|error| cannot_write(path, &error))?;
        let file = (about.dev(), about.ino());
        if about.is_file() && files.contains(&file) {
            let path = path.display();
            return Err(format!("{path} cannot be two reports: name two files"));
        }
        files.push(file);
        count += 1;
    }
    Ok(count)
}

fn write(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    fs::write(path, text).map_err(|error| cannot_write(path, &error))?;
    // It is there, whether or not somebody hears of it.
    let _ = say(format!("written: {}\n", path.display()));
    Ok(())
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
}
