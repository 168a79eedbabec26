//! A shared library with NVML's C symbols, played by a scenario file that may change while it runs.
//!
//! It stands where the driver's own would: as `libnvidia-ml.so.1` in a directory of `LD_LIBRARY_PATH`, or at a path
//! given to the program. The scenario is the file that the environment variable `FAKE_NVML_SCENARIO` names, else
//! `scenario` beside the library. It is looked at on every call, and read again when it changed; no file means two
//! steady GPUs. [`harness`] does all of this for a test.
//!
//! # The scenario file
//!
//! One statement a line; `#` begins a comment. A later line overrides an earlier one, `gpu *` means every GPU.
//!
//! ```text
//! gpus 4                             how many devices; 2 if not said
//! host 7                             makes UUIDs and serial numbers of another host
//! driver 580.82.07                   version of the driver
//! init 18                            nvmlInit_v2 answers this code (9 no driver, 18 versions do not fit)
//! trace /tmp/calls                   appends a line for each call: its name, and the GPU
//! spent /tmp/spent                   keeps there the nanoseconds of CPU that all calls have used
//! call nvmlEventSetWait_v2 15        a call that is about no GPU answers this code
//!
//! gpu * load steady                  idle, steady (the default) or hot: sets all values of a GPU
//! gpu 2 temperature 91               one value; the names stand in `scenario::FIELDS`
//! gpu 2 fan none                     not supported; `denied`: no permission; `!999`: this code
//! gpu 3 lost                         every call about it answers 15
//! gpu 3 reset_required               every call about it answers 16
//! gpu 1 absent                       it is not enumerated, and the ones behind it move up
//! gpu 0 process 4242 1073741824      a compute process and its memory; may be repeated
//! gpu 0 call nvmlDeviceGetName 300ms the call takes so long
//! gpu 0 call * hang                  every call about it blocks for as long as the scenario says so
//! gpu 0 call nvmlDeviceGetName 3     the call answers this code
//!
//! event 1 gpu 0 xid 79               an event, delivered once; numbers rise from 1
//! ```
//!
//! Power, PCIe and NVLink rates fill running totals in real time. A symbol that a driver is too old to have cannot be
//! said in the file, since the loader is asked for it: [`harness::FakeNvml::without_symbols`] takes it out of the
//! library's symbol table.

#![allow(unsafe_code, reason = "it is a C library")]

mod gpm;
pub mod harness;
mod player;
pub mod scenario;
mod spent;
mod symbols;
mod watch;
