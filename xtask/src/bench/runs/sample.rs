//! What comes out of one run.

use std::collections::HashMap;

use crate::exec::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub figure: f64,
    /// Of the host, beside the vCPU, for each request.
    pub cpu_us: Option<f64>,
    pub kicks: Option<f64>,
}

impl Sample {
    /// A figure alone.
    pub fn of(figure: f64) -> Self {
        Self { figure, cpu_us: None, kicks: None }
    }

    /// By the line `end done=N us=N [kicks=N] [wrong=N] [cpu_us=N]` of a guest or of the floor. A guest does not know the
    /// CPU time.
    pub fn told(line: &str, cpu_us: Option<f64>) -> Result<Self> {
        let told = fields(line);
        let field = |key| told.get(key).copied();
        if let Some(wrong) = field("wrong").filter(|wrong| *wrong != 0.0) {
            return Err(Error::new(format!("{wrong} requests had wrong data or a bad status")));
        }
        match (field("done"), field("us"), cpu_us.or_else(|| field("cpu_us"))) {
            (Some(done), Some(us), cpu_us) if done > 0.0 && us > 0.0 => Ok(Self {
                figure: done * 1e6 / us,
                cpu_us: cpu_us.map(|us| us / done),
                kicks: field("kicks").map(|kicks| kicks / done),
            }),
            _ => Err(Error::new(format!("nothing was done: {line}"))),
        }
    }
}

/// The `key=number` of a line.
pub fn fields(line: &str) -> HashMap<String, f64> {
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.filter_map(|(key, value)| Some((key.to_string(), value.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_becomes_a_rate() {
        let sample = Sample::told("done=500 us=250000 kicks=50 wrong=0", Some(1000.0)).unwrap();
        assert_eq!(sample, Sample { figure: 2000.0, cpu_us: Some(2.0), kicks: Some(0.1) });
        assert_eq!(Sample::told("done=500 us=250000 cpu_us=500", None).unwrap().cpu_us, Some(1.0));
    }

    #[test]
    fn a_run_that_did_nothing_or_the_wrong_thing_does_not_count() {
        assert!(Sample::told("done=0 us=1", None).is_err());
        assert!(Sample::told("done=5 us=5 kicks=1 wrong=2", None).unwrap_err().to_string().contains("2 requests"));
    }
}
