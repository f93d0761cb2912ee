//! `ringroom compare`: measured runs side by side, merged, or shown again.
//!
//! Owns the flags, the exit codes and the files; what is found out is [`crate::results`]' work. It starts no run and talks to no server: the same
//! directories give the same answer to the last digit.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::results::compare::{Comparison, Request, compare};
use crate::results::side::{Side, tell_apart};
use crate::results::{Problem, merge, page, report, text};
use crate::stats::SEED;

/// Compare measured runs: better, worse or not shown, per quantile.
///
/// Each DIR holds run directories of `ringroom load --out`, or is one run. The first one is what the others are compared with. A run is the unit
/// of statistics: at least 4 valid ones a side, better 8, interleaved. Exit codes: 0 compared (whatever came out); 64 a wrong command line or runs
/// that do not belong together; 65 a file is missing or damaged; 74 the answer could not be written.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directories of runs: A/ B/ [C/ ...]
    #[arg(value_name = "DIR", required_unless_present_any = ["report", "merge"])]
    pub sides: Vec<PathBuf>,
    /// More runs of A's configuration, taken apart from it: their distance from A counts as noise [default: A is cut into halves]
    #[arg(long, value_name = "DIR")]
    pub aa: Option<PathBuf>,
    /// Seed of the bootstrap and of what else is drawn
    #[arg(long, value_name = "N", default_value_t = SEED)]
    pub seed: u64,
    /// Directory for compare.json and compare.html
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print compare.json instead of the table
    #[arg(long)]
    pub json: bool,
    /// Write report.html of one run again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sides", "aa", "out", "json", "merge"])]
    pub report: Option<PathBuf>,
    /// Make one run of the files of several generators: the directory to write, then those to read
    #[arg(long, value_name = "OUT", conflicts_with_all = ["aa", "out", "json"])]
    pub merge: Option<PathBuf>,
}

pub fn run(args: &Args) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match execute(args, &mut stdout) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // With standard error gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "ringroom compare: {problem}");
            ExitCode::from(problem.exit())
        }
    }
}

/// The command with its output as a value.
pub fn execute(args: &Args, out: &mut dyn Write) -> Result<(), Problem> {
    let said = match (&args.report, &args.merge) {
        (Some(directory), _) => show_again(directory, out)?,
        (_, Some(target)) => put_together(target, &args.sides, out)?,
        _ => side_by_side(args, out)?,
    };
    match said.and_then(|()| out.flush()) {
        // Whoever reads has seen enough: `compare ... | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Problem::Output(error.to_string())),
    }
}

fn show_again(directory: &Path, out: &mut dyn Write) -> Result<io::Result<()>, Problem> {
    report::make(directory)?;
    Ok(writeln!(out, "{}", directory.join(report::FILE).display()))
}

fn put_together(target: &Path, directories: &[PathBuf], out: &mut dyn Write) -> Result<io::Result<()>, Problem> {
    let merged = merge::merge(target, directories)?;
    report::make(target)?;
    let mut said = writeln!(out, "{}: {} generators merged", target.display(), merged.generators);
    for sentence in merged.dominating {
        said = said.and_then(|()| writeln!(out, "warning: {sentence}"));
    }
    Ok(said)
}

fn side_by_side(args: &Args, out: &mut dyn Write) -> Result<io::Result<()>, Problem> {
    if args.sides.len() < 2 {
        return Err(Problem::Usage("one directory alone: name at least two, A/ B/ (or --report DIR for one run)".into()));
    }
    let mut sides = args.sides.iter().map(|path| Side::read(path)).collect::<Result<Vec<_>, _>>()?;
    tell_apart(&mut sides);
    let again = args.aa.as_deref().map(Side::read).transpose()?;
    let comparison = compare(Request { sides: &sides, again: again.as_ref(), seed: args.seed })?;
    if let Some(directory) = &args.out {
        save(directory, &sides, &comparison, args).map_err(|error| Problem::Output(format!("{}: {error}", directory.display())))?;
    }
    Ok(if args.json { json(out, &comparison) } else { text::write(out, &comparison) })
}

fn json(out: &mut dyn Write, comparison: &Comparison) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, comparison)?;
    writeln!(out)
}

fn save(directory: &Path, sides: &[Side], comparison: &Comparison, args: &Args) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut bytes = Vec::new();
    json(&mut bytes, comparison)?;
    fs::write(directory.join("compare.json"), bytes)?;
    fs::write(directory.join("compare.html"), page::page(sides, comparison, &command(args)))
}

/// How to have the page again.
fn command(args: &Args) -> String {
    let mut words = vec!["ringroom compare".to_owned()];
    words.extend(args.sides.iter().map(|path| path.display().to_string()));
    if let Some(path) = &args.aa {
        words.push(format!("--aa {}", path.display()));
    }
    words.push(format!("--seed {}", args.seed));
    if let Some(path) = &args.out {
        words.push(format!("--out {}", path.display()));
    }
    words.join(" ")
}
