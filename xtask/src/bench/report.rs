//! The table for people, and the JSON for programs.

use serde_json::{Map, Value, json};

use super::contender::Contender;
use super::result::RowResult;
use super::runs::Sample;
use super::stats;
use crate::args::BenchOptions;

/// The table. The last column says how good the first contender is by the one of the line: above 1 it is ahead.
pub fn table(results: &[RowResult], absent: &[String]) -> String {
    let mut text = String::new();
    for result in results {
        text += &format!("\n{} ({})\n", result.row.name, result.row.unit());
        text += &format!(
            "  {:<14}{:>12}{:>12}{:>12}{:>9}{:>12}{:>11}{:>11}\n",
            "", "median", "least", "most", "spread", "CPU us/req", "kicks/req", "first/this"
        );
        for (label, samples) in &result.runs {
            text += &match samples {
                Ok(samples) if samples.is_empty() => String::new(),
                Ok(samples) => line(label, samples, ratio(result, samples)),
                // The command comes on a line of its own, and is in the JSON.
                Err(error) => {
                    format!("  {label:<14}not measured: {}\n", error.to_string().lines().next().unwrap_or(""))
                }
            };
        }
    }
    if !absent.is_empty() {
        text += &format!("\nabsent: {}\n", absent.join("; "));
    }
    text + "CPU us/req is the host's CPU time for each request, without the vCPU's thread; kicks are doorbells.\n"
}

fn line(label: &str, samples: &[Sample], ratio: Option<f64>) -> String {
    let figures = figures(samples);
    let (low, high) = stats::range(&figures);
    let optional = |value: Option<f64>, digits| value.map_or_else(String::new, |value| format!("{value:.digits$}"));
    let (cpu, kicks) = (middle(samples, |sample| sample.cpu_us), middle(samples, |sample| sample.kicks));
    format!(
        "  {label:<14}{:>12}{:>12}{:>12}{:>8.1}%{:>12}{:>11}{:>11}\n",
        number(stats::median(&figures)),
        number(low),
        number(high),
        stats::spread(&figures) * 100.0,
        optional(cpu, 2),
        optional(kicks, 3),
        optional(ratio, 3),
    )
}

fn number(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn figures(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.figure).collect()
}

fn middle(samples: &[Sample], of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = samples.iter().filter_map(of).collect();
    (!values.is_empty()).then(|| stats::median(&values))
}

/// How good the first contender is by this one.
fn ratio(result: &RowResult, samples: &[Sample]) -> Option<f64> {
    let (_, Ok(first)) = result.runs.first()? else { return None };
    let (first, this) = (figures(first), figures(samples));
    if result.row.less_is_better() { stats::ratio(&this, &first) } else { stats::ratio(&first, &this) }
}

/// Everything that was measured, where, and of whom.
pub fn json(results: &[RowResult], contenders: &[Contender], host: &str, options: &BenchOptions) -> String {
    let rows: Vec<Value> = results.iter().map(row_json).collect();
    let who: Map<String, Value> =
        contenders.iter().map(|contender| (contender.label.clone(), json!(contender.about))).collect();
    let (rounds, run_ms, disk_mib) = (options.rounds, options.run_ms, options.disk_mib);
    let all = json!({
        "host": host,
        "contenders": who,
        "rounds": rounds,
        "run_ms": run_ms,
        "disk_mib": disk_mib,
        "rows": rows,
    });
    format!("{all:#}\n")
}

fn row_json(result: &RowResult) -> Value {
    let runs = result.runs.iter().map(|(label, samples)| match samples {
        Ok(samples) => {
            let figures = figures(samples);
            json!({
                "contender": label,
                "median": stats::median(&figures),
                "spread": stats::spread(&figures),
                "first_by_this": ratio(result, samples),
                "cpu_us_a_request": middle(samples, |sample| sample.cpu_us),
                "kicks_a_request": middle(samples, |sample| sample.kicks),
                "samples": figures,
            })
        }
        Err(error) => json!({ "contender": label, "failed": error.to_string() }),
    });
    json!({ "row": result.row.name, "unit": result.row.unit(), "contenders": runs.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows;
    use crate::exec::Error;

    fn results() -> Vec<RowResult> {
        let row = rows::matching(&["first-byte".into()]).unwrap().remove(0);
        let samples = |figures: &[f64]| Ok(figures.iter().copied().map(Sample::of).collect());
        let lost = Err(Error::new("no such option\nby launch --disk x"));
        let runs = vec![
            ("ours".into(), samples(&[100.0, 200.0])),
            ("peer".into(), samples(&[300.0, 600.0])),
            ("old".into(), lost),
        ];
        vec![RowResult { row, runs }]
    }

    #[test]
    fn the_table_says_who_is_ahead_and_who_is_missing() {
        let text = table(&results(), &["qemu: not installed".into()]);
        let line = |word: &str| text.lines().find(|line| line.trim_start().starts_with(word)).unwrap().to_string();
        // Less time is better, so the first is ahead.
        assert!(line("peer").ends_with("3.000") && line("peer").contains("450.0"), "{text}");
        assert!(line("old").ends_with("not measured: no such option"), "{text}");
        assert!(line("absent").contains("qemu"), "{text}");
    }

    #[test]
    fn the_json_has_every_sample() {
        let text = json(&results(), &[], "a host", &BenchOptions::default());
        let value: Value = serde_json::from_str(&text).unwrap();
        let contenders = &value["rows"][0]["contenders"];
        assert_eq!(contenders[1]["samples"], json!([300.0, 600.0]));
        assert!(contenders[2]["failed"].as_str().unwrap().contains("launch --disk x"));
    }
}
