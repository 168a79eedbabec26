//! Recent state of every series: window and open stretch.
