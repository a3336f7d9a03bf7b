//! The nested host's agent on the second serial line: output of a test, markers, and a heartbeat in between.

/// The agent's sign of life, which may stand anywhere.
pub const BEAT: u8 = 5;

const PREFIX: &str = "@vmcell ";

/// A line from the agent.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// The agent waits for tests.
    Ready,
    /// The test that was started under this number ended.
    End { id: u32, code: i32 },
    /// Output of a test.
    Output(String),
}

impl Line {
    /// Reads a line without its end.
    pub fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.strip_prefix(PREFIX).unwrap_or_default().split_whitespace().collect();
        match words[..] {
            ["ready"] => Self::Ready,
            ["end", id, code] => match (id.parse(), code.parse()) {
                (Ok(id), Ok(code)) => Self::End { id, code },
                _ => Self::Output(line.into()),
            },
            _ => Self::Output(line.into()),
        }
    }
}

/// Cuts incoming bytes into lines.
#[derive(Default)]
pub struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Takes `bytes`, and returns the lines that they end.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match byte {
                BEAT | b'\r' => {}
                b'\n' => lines.push(self.take()),
                _ => self.partial.push(byte),
            }
        }
        lines
    }

    /// Takes an unfinished line, for a host that ended within it.
    pub fn take(&mut self) -> Line {
        let line = std::mem::take(&mut self.partial);
        Line::parse(&String::from_utf8_lossy(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_output() {
        assert_eq!(Line::parse("@vmcell ready"), Line::Ready);
        assert_eq!(Line::parse("@vmcell end 7 101"), Line::End { id: 7, code: 101 });
        for output in ["", "ready", "x @vmcell ready", "@vmcell end 7", "@vmcell end seven 0"] {
            assert_eq!(Line::parse(output), Line::Output(output.into()));
        }
    }

    #[test]
    fn beats_are_taken_out_wherever_they_stand() {
        let mut splitter = Splitter::default();
        assert!(splitter.push(b"test a ... \x05").is_empty());
        let lines = splitter.push(b"ok\r\n@vmcell \x05end 1 0\n");
        assert_eq!(lines, [Line::Output("test a ... ok".into()), Line::End { id: 1, code: 0 }]);
    }

    #[test]
    fn the_unfinished_line_can_be_taken() {
        let mut splitter = Splitter::default();
        splitter.push(b"half");
        assert_eq!(splitter.take(), Line::Output("half".into()));
    }
}
