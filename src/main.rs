//! The `ringroom` program: flags choose one command; the commands live in the library.
//!
//! Exit codes are the commands' own (`ringroom serve --help` lists them); a bad command line is 64 everywhere.

use std::process::ExitCode;

use clap::Parser;
use ringroom::{client, compare, load, serve, token, tune};

/// Real-time chat server for Linux on io_uring, with its load generator.
#[derive(Debug, Parser)]
#[command(name = "ringroom", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::Args),
    Load(Box<load::Args>),
    Compare(compare::Args),
    Chat(client::chat::Args),
    Token(token::Args),
    Tune(tune::Args),
}

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(Cli { command: Command::Serve(args) }) => serve::run(&args),
        Ok(Cli { command: Command::Load(args) }) => load::run(*args),
        Ok(Cli { command: Command::Compare(args) }) => compare::run(&args),
        Ok(Cli { command: Command::Chat(args) }) => client::chat::run(&args),
        Ok(Cli { command: Command::Token(args) }) => token::run(&args),
        Ok(Cli { command: Command::Tune(args) }) => tune::run(&args),
        Err(error) => {
            // Help and version are asked for and go to standard output; a failed write there has nobody to tell.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(serve::exit::USAGE) } else { ExitCode::SUCCESS }
        }
    }
}
