//! Exit codes: what a script or a service manager can tell from how the process ended.
//!
//! The numbers are those of sysexits.h where one fits. Owns the table and nothing else; `ringroom serve --help` shows it.

/// The command line or the configuration is wrong.
pub const USAGE: u8 = 64;
/// The config file or a key file can't be read.
pub const NO_INPUT: u8 = 66;
/// An address can't be listened on.
pub const ADDRESS: u8 = 69;
/// The server itself failed.
pub const INTERNAL: u8 = 70;
/// A limit of the operating system is too low.
pub const LIMIT: u8 = 71;
/// A CPU asked for is not there, or not for this process.
pub const CPU: u8 = 74;
/// It ended before every client was told.
pub const CUT_SHORT: u8 = 75;
/// The operating system refuses a right.
pub const PERMISSION: u8 = 77;
/// io_uring can't be used.
pub const IO_URING: u8 = 78;

/// Every code with what it means and what to do.
pub const TABLE: [(u8, &str); 10] = [
    (0, "stopped as asked, every client told"),
    (USAGE, "bad command line or configuration: the message names the flag, or the file, line and key; or a key file holds no key"),
    (NO_INPUT, "the config file or a key file can't be read"),
    (ADDRESS, "an address can't be listened on: in use, not of this host, or a privileged port"),
    (INTERNAL, "the server itself failed, for example a shard ended: see the log, restart it"),
    (LIMIT, "a limit of the operating system is too low: open files (nofile) or locked memory (memlock)"),
    (CPU, "a CPU asked for is not there, or not allowed for this process"),
    (CUT_SHORT, "stopped before every client was told: a second signal, or the drain time ran out"),
    (PERMISSION, "the operating system refuses something else that is needed"),
    (IO_URING, "io_uring can't be used: kernel too old, switched off, or forbidden by a container"),
];

/// The table as the help shows it.
pub fn help() -> String {
    let rows: Vec<String> = TABLE.iter().map(|(code, meaning)| format!("  {code:>2}  {meaning}")).collect();
    format!("Exit codes:\n{}", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_help_once() {
        let codes = [0, USAGE, NO_INPUT, ADDRESS, INTERNAL, LIMIT, CPU, CUT_SHORT, PERMISSION, IO_URING];
        assert_eq!(TABLE.map(|(code, _)| code), codes);
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(codes.iter().all(|code| help().contains(&format!("\n  {code:>2}  "))));
    }
}
