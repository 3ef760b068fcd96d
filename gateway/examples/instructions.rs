//! Counts the instructions of each step of a message's way. `loadtest/instructions.sh` runs it under callgrind, which
//! counts inside of [`measured`] only.
//!
//! Without arguments it prints the steps, one a line. With a step and a number it calls the step so often.

#![expect(clippy::print_stdout, clippy::expect_used, clippy::panic, reason = "a tool for whoever measures")]

#[path = "../tests/hot_path/mod.rs"]
mod hot_path;

use std::hint::black_box;

use hot_path::{Measure, steps};

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Calls before it counts: tables and buffers have then grown to their size.
const WARM_UP: usize = 300;

struct Runner {
    /// The step and its calls; none to name all of them.
    asked: Option<(String, usize)>,
}

impl Measure for Runner {
    fn step<I, O>(&mut self, name: &'static str, mut input: impl FnMut() -> I, mut run: impl FnMut(I) -> O) {
        match &self.asked {
            None => println!("{name}"),
            Some((asked, calls)) if asked == name => {
                for _ in 0..WARM_UP {
                    drop(black_box(run(black_box(input()))));
                }
                for _ in 0..*calls {
                    let input = black_box(input());
                    measured(&mut run, input);
                }
            }
            Some(_) => {}
        }
    }
}

#[inline(never)]
fn measured<I, O>(run: &mut impl FnMut(I) -> O, input: I) {
    drop(black_box(run(input)));
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let asked = arguments.next().zip(arguments.next());
    let asked = asked.map(|(step, calls)| (step, calls.parse().expect("a number of calls")));
    steps(&mut Runner { asked });
}
