//! What the programs that make load say, as figures. No program is run here.

use serde_json::Value;

use super::{Figure, Turn};

/// What a load counted, and the turn that is made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// How many answers there were.
    pub requests: f64,
    /// Figures of the load's side.
    pub turn: Turn,
}

/// Reads the line of `echo_load`.
///
/// # Errors
///
/// A line that is none, or has an answer that was wrong or did not come.
pub fn echo(said: &str) -> Result<Told, String> {
    let mut told = from_json(said)?;
    let line: Value = serde_json::from_str(said.trim()).map_err(|error| error.to_string())?;
    let server = &line["server"];
    // Of a server that falls behind, many answers come when it is not watched any more: what it used was for the others.
    let answers = server["answers"].as_f64().filter(|answers| *answers > 0.0);
    let per_request = |name: &str| Some(server[name].as_f64()? / answers?);
    // Hundredths of a second say little of a turn that has less than a hundred of them.
    let is_long = line["seconds"].as_f64() >= Some(1.0);
    let figures = [
        (Figure::Cpu, per_request("cpu_us")),
        (Figure::User, per_request("user_us").filter(|_| is_long)),
        (Figure::Switches, per_request("switches")),
    ];
    told.turn.figures.extend(
        figures
            .into_iter()
            .filter_map(|(figure, value)| Some((figure, value?))),
    );
    Ok(told)
}

/// Reads the line that [`wrk_script`] lets wrk print, behind what wrk prints itself.
///
/// # Errors
///
/// As for [`echo`].
pub fn wrk(said: &str) -> Result<Told, String> {
    let line = said.lines().find(|line| line.starts_with('{'));
    from_json(line.ok_or("wrk says nothing of its script")?)
}

/// As [`wrk`], of requests that are pipelined: without latencies. wrk makes some up for the time in which it takes itself
/// to have waited with further requests, and so for each that is pipelined.
///
/// # Errors
///
/// As for [`echo`].
pub fn wrk_pipelined(said: &str) -> Result<Told, String> {
    let mut told = wrk(said)?;
    let is_latency = |figure: &Figure| [Figure::P50, Figure::P99, Figure::P999].contains(figure);
    told.turn.figures.retain(|figure, _| !is_latency(figure));
    told.turn.curve.clear();
    Ok(told)
}

fn from_json(said: &str) -> Result<Told, String> {
    let line: Value =
        serde_json::from_str(said.trim()).map_err(|error| format!("no line of JSON: {error}"))?;
    let number =
        |value: &Value, name: &str| value.as_f64().ok_or_else(|| format!("no {name} in {said}"));
    let errors = number(&line["errors"], "errors")?;
    if errors > 0.0 {
        return Err(format!("{errors} answers were wrong or did not come"));
    }
    let requests = number(&line["requests"], "requests")?;
    if requests == 0.0 {
        return Err("no answer came".to_owned());
    }
    let latency = &line["latency_us"];
    let mut turn = Turn::default();
    for (figure, value, name) in [
        (Figure::Rate, &line["rate"], "rate"),
        (Figure::P50, &latency["p50"], "p50"),
        (Figure::P99, &latency["p99"], "p99"),
        (Figure::P999, &latency["p99.9"], "p99.9"),
    ] {
        turn.figures.insert(figure, number(value, name)?);
    }
    let curve = line["curve_us"].as_array().map_or(&[][..], Vec::as_slice);
    turn.curve = curve
        .iter()
        .filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?)))
        .collect();
    Ok(Told { requests, turn })
}

/// Returns the script for wrk: so many requests in one write, and a line of JSON at the end.
#[must_use]
pub fn wrk_script(depth: usize) -> String {
    // Without a function of its own, wrk makes its request once.
    let requests = if depth == 1 {
        String::new()
    } else {
        format!(
            "init = function(args) all = string.rep(wrk.format(), {depth}) end\nrequest = function() return all end\n"
        )
    };
    requests + WRK_DONE
}

const WRK_DONE: &str = r#"done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  local seconds = summary.duration / 1e6
  local points = {}
  for _, p in ipairs({10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999}) do
    points[#points + 1] = string.format("[%s, %d]", p, latency:percentile(p))
  end
  io.write(string.format('\n{"requests": %d, "rate": %f, "errors": %d, ', summary.requests, summary.requests / seconds, failed))
  io.write(string.format('"latency_us": {"p50": %d, "p99": %d, "p99.9": %d}, ',
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
  io.write('"curve_us": [' .. table.concat(points, ", ") .. "]}\n")
end
"#;

/// What every HTTP server here answers.
pub const HELLO: &str = "Hello, world!";

/// Reads what h2load prints. It tells no percentiles.
///
/// # Errors
///
/// As for [`echo`]; answers that are not as long as they should be.
pub fn h2load(said: &str) -> Result<Told, String> {
    let strange = || format!("h2load says something else: {said}");
    let line = |begin: &str| {
        said.lines()
            .find_map(|line| line.trim().strip_prefix(begin))
    };
    let before = |line: &str, word: &str| {
        line.split(',')
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<f64>().ok())
    };
    let rate = line("finished in")
        .and_then(|line| before(line, "req/s"))
        .ok_or_else(strange)?;
    let counted = line("requests:").ok_or_else(strange)?;
    let requests = before(counted, "succeeded").ok_or_else(strange)?;
    let failed = before(counted, "failed").ok_or_else(strange)?;
    if failed > 0.0 || requests == 0.0 {
        return Err(format!(
            "{failed} of the requests failed, {requests} were answered"
        ));
    }
    let started = before(counted, "started").ok_or_else(strange)?;
    // "…, 9.49MB (9949992) data"
    let traffic = line("traffic:").and_then(|line| line.rsplit_once('('));
    let bytes = traffic.and_then(|(_, data)| data.strip_suffix(") data")?.parse::<f64>().ok());
    let bytes = bytes.ok_or_else(strange)?;
    let length = HELLO.len() as f64;
    // Answers to what was under way at the end may have begun to come.
    if !(requests * length..=started * length).contains(&bytes) {
        return Err(format!(
            "{requests} answers had {bytes} bytes, not {length} each"
        ));
    }
    let turn = Turn {
        figures: [(Figure::Rate, rate)].into(),
        curve: Vec::new(),
    };
    Ok(Told { requests, turn })
}

/// Reads the figure of a part.
///
/// # Errors
///
/// What is no line of a micro program, or is about another part.
pub fn micro(said: &str, name: &str) -> Result<Turn, String> {
    let lines = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut named = lines.filter(|line| line["name"] == name);
    let value = named.next().and_then(|line| line["ns"].as_f64());
    let value = value.ok_or_else(|| format!("nothing is said of {name}"))?;
    Ok(Turn {
        figures: [(Figure::Nanos, value)].into(),
        curve: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: &str = r#"{"requests":1000,"seconds":2.0,"rate":500.0,"errors":0,
        "latency_us":{"p50":10.0,"p90":15.0,"p99":20.0,"p99.9":30.0,"max":40.0},
        "curve_us":[[50.0,10.0],[100.0,40.0]],"server":{"answers":1000,"cpu_us":4000.0,"user_us":500.0,"switches":100}}"#;

    #[test]
    fn an_echo_costs_its_share_of_the_server() {
        let told = echo(ECHO).expect("it is a line");
        assert_eq!(told.turn.figures[&Figure::Cpu], 4.0);
        assert_eq!(told.turn.figures[&Figure::User], 0.5);
        assert_eq!(told.turn.figures[&Figure::Switches], 0.1);
        assert_eq!(told.turn.figures[&Figure::P999], 30.0);
        assert_eq!(told.turn.curve, [(50.0, 10.0), (100.0, 40.0)]);
    }

    #[test]
    fn what_a_server_used_was_for_what_it_answered_meanwhile() {
        let behind = echo(&ECHO.replace("\"answers\":1000", "\"answers\":500"));
        let figures = behind.expect("it is a line").turn.figures;
        assert_eq!(
            (figures[&Figure::Cpu], figures[&Figure::Rate]),
            (8.0, 500.0)
        );
        let hung = echo(&ECHO.replace("\"answers\":1000", "\"answers\":0"));
        assert!(
            !hung
                .expect("it is a line")
                .turn
                .figures
                .contains_key(&Figure::Cpu)
        );
    }

    #[test]
    fn a_short_turn_has_no_time_in_user_space() {
        let short = echo(&ECHO.replace("\"seconds\":2.0", "\"seconds\":0.5"));
        let figures = short.expect("it is a line").turn.figures;
        assert!(!figures.contains_key(&Figure::User) && figures.contains_key(&Figure::Cpu));
    }

    #[test]
    fn wrong_answers_count_for_nothing() {
        let wrong = ECHO.replace("\"errors\":0", "\"errors\":3");
        assert!(
            echo(&wrong)
                .expect_err("three are wrong")
                .starts_with("3 answers")
        );
        let none = ECHO.replace("\"requests\":1000", "\"requests\":0");
        assert_eq!(echo(&none), Err("no answer came".to_owned()));
        assert!(echo("thread panicked").is_err());
    }

    #[test]
    fn the_line_of_wrk_stands_behind_its_own() {
        let said = "Running 2s test\nRequests/sec: 1\n\n{\"requests\": 10, \"rate\": 5.0, \"errors\": 0, \
                    \"latency_us\": {\"p50\": 1, \"p99\": 2, \"p99.9\": 3}, \"curve_us\": []}\n";
        assert_eq!(wrk(said).expect("it is there").requests, 10.0);
        assert!(wrk("Running 2s test").is_err());
        let pipelined = wrk_pipelined(&said.replace("[]", "[[50, 1]]")).expect("it is there");
        assert_eq!(pipelined.requests, 10.0);
        assert_eq!(pipelined.turn.figures, [(Figure::Rate, 5.0)].into());
        assert!(pipelined.turn.curve.is_empty());
    }

    #[test]
    fn only_a_pipeline_makes_requests_of_its_own() {
        assert!(!wrk_script(1).contains("request ="));
        assert!(wrk_script(16).contains("wrk.format(), 16"));
    }

    #[test]
    fn h2load_is_read_and_failures_are_seen() {
        let said = "finished in 2.00s, 365000.50 req/s, 12.5MB/s\n\
                    requests: 730001 total, 730512 started, 730001 done, 730001 succeeded, 0 failed, 0 errored, 0 timeout\n\
                    traffic: 26MB (27740038) total, 4.87MB (5110007) headers (space savings 88%), 9.05MB (9490013) data\n";
        let told = h2load(said).expect("it is whole");
        assert_eq!(
            (told.requests, told.turn.figures[&Figure::Rate]),
            (730_001.0, 365_000.5)
        );
        assert!(h2load(&said.replace("0 failed", "7 failed")).is_err());
        let short = h2load(&said.replace("(9490013) data", "(9490012) data"));
        let told = "730001 answers had 9490012 bytes, not 13 each";
        assert_eq!(short, Err(told.to_owned()));
        assert!(h2load(&said.replace("(9490013) data", "(9499999) data")).is_err());
        assert!(h2load("").is_err());
    }

    #[test]
    fn a_part_is_found_by_its_whole_name() {
        let said = "{\"name\": \"yield_100\", \"ns\": 7.0}\n{\"name\": \"yield_1\", \"ns\": 5.5}\n";
        assert_eq!(
            micro(said, "yield_1").expect("it is there").figures[&Figure::Nanos],
            5.5
        );
        assert!(micro(said, "yield").is_err());
    }
}
