//! Runs a reactor inside a glommio executor.
