#![doc = include_str!("ARCHITECTURE.md")]
#![deny(unsafe_code)]

pub mod chart;
pub mod config;
pub mod ids;
pub mod limits;
pub mod mutation;
pub mod protocol;
pub mod stats;

pub mod memory;
pub mod ring;
pub mod sys;

pub mod chat;

pub mod auth;
pub mod cluster;
pub mod mesh;

pub mod reactor;

pub mod control;
pub mod results;

pub mod client;
pub mod compare;
pub mod load;
pub mod serve;
pub mod token;
pub mod tune;
