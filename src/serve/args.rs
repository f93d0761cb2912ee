//! The flags of `ringroom serve`, and how they and a file become settings.
//!
//! Flags are few on purpose: what a person types while trying things out. All the rest is in the file. Flags win over it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::StartError;
use super::exit;
use crate::config::{self, Flags, LoadError, Settings};

/// Runs the chat server.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = exit::help())]
pub struct Args {
    /// Address to listen on, like 127.0.0.1:7777 or [::1]:7777; may be given several times [default: 127.0.0.1:7777]
    #[arg(long, value_name = "ADDR", value_parser = config::parse_address)]
    pub listen: Vec<SocketAddr>,
    /// Shards, each a thread on a CPU of its own [default: one per available CPU, or per CPU of --cpus; more than this process may use: none is pinned; more than --cpus names: refused]
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// CPUs to pin the shards to, in this order, like 0-3,6 [default: all this process may use]
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    pub cpus: Option<CpuList>,
    /// Take over the port of the server that runs on it now, as the same user with no more shards: it is told to drain (SIGTERM) once this one is ready, and no client is refused meanwhile. What rooms retain is not taken along
    #[arg(long)]
    pub takeover: bool,
    /// Config file in TOML; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print every setting with its meaning as a config file, as flags and file make them, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Microseconds a shard looks for work before it sleeps [default: 0]
    #[arg(long, value_name = "N")]
    pub spin_us: Option<u64>,
    /// off, error, warn, info, debug or trace; wins over the variable RUST_LOG, which wins over the file [default: info]
    #[arg(long, value_name = "L")]
    pub log_level: Option<log::LevelFilter>,
    /// Let clients name themselves (auth.mode "open") also on addresses that others than this host can reach
    #[arg(long)]
    pub insecure_open: bool,
    /// Serve metrics, health and the admin API on this address; several allowed; anything but loopback needs admin.token_file
    /// [default: off; without an address: 127.0.0.1:7778]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = config::DEFAULT_ADMIN, value_parser = config::parse_address)]
    pub admin: Vec<SocketAddr>,
}

/// CPUs in the order given; a type of its own, because clap reads a `Vec` as "may be given several times".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

impl Args {
    /// The settings that file and flags make together.
    pub fn settings(&self) -> Result<Settings, StartError> {
        let flags = Flags {
            listen: self.listen.clone(),
            shards: self.shards,
            cpus: self.cpus.clone().map(|list| list.0),
            spin_us: self.spin_us,
            log_level: self.log_level,
            insecure_open: self.insecure_open,
            admin: self.admin.clone(),
        };
        config::load(self.config.as_deref(), &flags).map_err(|error| match error {
            LoadError::Unreadable { file, why } => {
                StartError::new(exit::NO_INPUT, format!("can't read the config file {file}: {why}; check the path and its rights"))
            }
            LoadError::Bad(error) => StartError::new(exit::USAGE, error.to_string()),
        })
    }
}

fn cpu_list(text: &str) -> Result<CpuList, String> {
    config::parse_cpus(text).map(CpuList)
}
