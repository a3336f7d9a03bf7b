//! Draws lines over a count into an SVG image.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 2] = ["#1f77b4", "#d62728"];

/// A diagram with a line for each thing that was measured.
pub struct Plot {
    pub title: String,
    pub lines: Vec<Line>,
}

/// What was measured, in nanoseconds, over how many there were.
pub struct Line {
    pub label: String,
    pub points: Vec<(f64, f64)>,
}

impl Plot {
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.svg())
    }

    fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(&mut svg, (LEFT, 20.0), "start", &self.title);
        let top = self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(1.0, f64::max);
        self.axes(&mut svg, top);
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            let path: Vec<String> = line.points.iter().map(|point| self.place(*point, top)).collect();
            let path = path.join(" ");
            let _ = writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        }
        for ((line, colour), row) in self.lines.iter().zip(COLOURS).zip(0u8..) {
            let y = HEIGHT - 26.0 + f64::from(row) * 16.0;
            let _ = writeln!(svg, "<rect x=\"{LEFT}\" y=\"{}\" width=\"12\" height=\"3\" fill=\"{colour}\"/>", y - 5.0);
            text(&mut svg, (LEFT + 18.0, y), "start", &line.label);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String, top: f64) {
        for quarter in 0..=4u8 {
            let value = top * f64::from(quarter) / 4.0;
            let y = height(value, top);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>",
                WIDTH - RIGHT
            );
            text(svg, (LEFT - 6.0, y + 4.0), "end", &format!("{value:.0} ns"));
        }
        for (count, _) in self.lines.first().map(|line| &line.points[..]).unwrap_or_default() {
            text(svg, (self.across(*count), HEIGHT - BOTTOM + 16.0), "middle", &format!("{count}"));
        }
    }

    fn place(&self, (count, value): (f64, f64), top: f64) -> String {
        format!("{:.1},{:.1}", self.across(count), height(value, top))
    }

    /// Counts double from point to point.
    fn across(&self, count: f64) -> f64 {
        let most = self.lines.iter().flat_map(|line| &line.points).map(|(count, _)| *count).fold(2.0, f64::max);
        LEFT + count.log2() / most.log2() * (WIDTH - LEFT - RIGHT)
    }
}

fn height(value: f64, top: f64) -> f64 {
    HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}
