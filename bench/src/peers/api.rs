//! The query API that both peers have: Prometheus'.

use std::time::Duration;

use anyhow::{Context, Result};
use entrenar::unit::Timestamp;
use serde_json::Value;

use super::fleet::{METRICS, Shared};
use super::server::Peer;
use crate::http;

/// Path of a question about one instant. VictoriaMetrics is asked not to answer from its cache.
pub fn instant(expression: &str, at: Timestamp) -> String {
    let at = at.as_secs_f64();
    format!(
        "/api/v1/query?nocache=1&time={at}&query={}",
        encode(expression)
    )
}

/// Path of a question about a range.
pub fn range(expression: &str, from: Timestamp, to: Timestamp, step_s: u32) -> String {
    let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
    format!(
        "/api/v1/query_range?nocache=1&start={from}&end={to}&step={step_s}&query={}",
        encode(expression)
    )
}

/// The one number that an expression comes to; 0 where it comes to nothing.
pub fn number(peer: &Peer, expression: &str, at: Timestamp) -> Result<f64> {
    let answer = http::get(&peer.address, &instant(expression, at))?;
    let answer: Value = serde_json::from_str(&answer)?;
    let Some(first) = answer["data"]["result"].get(0) else {
        return Ok(0.0);
    };
    let text = first["value"][1].as_str().context("a number as text")?;
    text.parse().with_context(|| format!("{text} is no number"))
}

/// How long what was taken may stay invisible.
const VISIBLE_WITHIN: Duration = Duration::from_secs(30);

/// Samples of all metrics that are compared, in a time before an instant, once there are as many as were sent; or as many as
/// there are after a while.
pub fn count_samples(peer: &Peer, window: &str, at: Timestamp, sent: f64) -> Result<f64> {
    // One by one: without their names, series of one GPU are the same.
    let of = |metric: &Shared| {
        let expression = format!("sum(count_over_time({}[{window}]))", metric.dcgm);
        number(peer, &expression, at)
    };
    let began = entrenar::clock::instant();
    loop {
        let found = METRICS.iter().map(of).sum::<Result<f64>>()?;
        if found >= sent || began.elapsed() > VISIBLE_WITHIN {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// All but letters and digits as `%XX`.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_survives_an_address() {
        assert_eq!(
            encode("max by (a)(b[1h])"),
            "max%20by%20%28a%29%28b%5B1h%5D%29"
        );
    }
}
