//! Exists so that `proxy-userspace` can have a build-dependency on this package; the programs are in `main.rs`.
#![no_std]
