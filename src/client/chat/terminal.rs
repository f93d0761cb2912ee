//! Where lines come from: a terminal with an editor, or a stream. Each has a thread of its own, and hands lines over through a bounded channel.
//!
//! Owns the terminal's mode: whatever way the program ends, [`Terminal`] puts it back. The editor waits for its next prompt, so that a line has been
//! dealt with before the next one is typed under a prompt that is no longer true.

use std::io::{self, BufRead, Read, Write};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};

use crate::limits::BODY_BYTES_MAX;

/// Lines that were read and not yet taken.
const LINES_MAX: usize = 64;

#[derive(Debug)]
pub(super) enum Line {
    Text(String),
    /// Longer than a message can be.
    TooLong,
    End,
}

/// An editor on the terminal, and a way to print above the line that is being edited.
pub(super) struct Terminal {
    pub(super) lines: Receiver<Line>,
    prompts: Sender<String>,
    printer: Box<dyn FnMut(String) -> Result<(), ReadlineError>>,
    before: Option<Termios>,
}

impl Terminal {
    pub(super) fn open() -> Result<Self, ReadlineError> {
        let before = tcgetattr(io::stdin()).ok();
        let mut editor = DefaultEditor::new()?;
        let mut printer = editor.create_external_printer()?;
        let (line_in, lines) = bounded(LINES_MAX);
        let (prompts, prompt_out) = bounded::<String>(1);
        thread::Builder::new().name("editor".into()).spawn(move || {
            for prompt in prompt_out {
                let line = match editor.readline(&prompt) {
                    Ok(line) => {
                        // Without memory for it, one line less to go back to.
                        let _ = editor.add_history_entry(&line);
                        Line::Text(line)
                    }
                    // A line that was given up.
                    Err(ReadlineError::Interrupted) => Line::Text(String::new()),
                    Err(_) => Line::End,
                };
                if line_in.send(line).is_err() {
                    return;
                }
            }
        })?;
        let printer = Box::new(move |text| printer.print(text));
        Ok(Self { lines, prompts, printer, before })
    }

    /// Lets the next line be typed.
    pub(super) fn prompt(&self, prompt: String) {
        // The editor asks for no more prompts once its input has ended.
        let _ = self.prompts.try_send(prompt);
    }

    pub(super) fn print(&mut self, text: &str) -> io::Result<()> {
        (self.printer)(format!("{text}\n")).map_err(io::Error::other)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs no mode.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
            let _ = io::stdout().write_all(b"\r\x1b[K").and_then(|()| io::stdout().flush());
        }
    }
}

/// Lines of standard input.
pub(super) fn read_lines() -> io::Result<Receiver<Line>> {
    let (line_in, lines) = bounded(LINES_MAX);
    thread::Builder::new().name("input".into()).spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let line = next_line(&mut input);
            let last = matches!(line, Line::End);
            if line_in.send(line).is_err() || last {
                return;
            }
        }
    })?;
    Ok(lines)
}

/// Reads one line without keeping more of it than a message can have.
fn next_line(input: &mut impl BufRead) -> Line {
    let most = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    match input.by_ref().take(most).read_until(b'\n', &mut bytes) {
        Ok(0) | Err(_) => return Line::End,
        Ok(_) => {}
    }
    if bytes.len() == BODY_BYTES_MAX && bytes.last() != Some(&b'\n') {
        return match input.skip_until(b'\n') {
            Ok(_) => Line::TooLong,
            Err(_) => Line::End,
        };
    }
    let text = String::from_utf8_lossy(&bytes);
    Line::Text(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_line_too_long_is_let_go_and_the_next_one_read() {
        let text = format!("a\r\n\n{}\nb", "x".repeat(BODY_BYTES_MAX * 3));
        let mut input = text.as_bytes();
        assert!(matches!(next_line(&mut input), Line::Text(line) if line == "a"));
        assert!(matches!(next_line(&mut input), Line::Text(line) if line.is_empty()));
        assert!(matches!(next_line(&mut input), Line::TooLong));
        assert!(matches!(next_line(&mut input), Line::Text(line) if line == "b"));
        assert!(matches!(next_line(&mut input), Line::End));
    }
}
