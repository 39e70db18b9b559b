"""From a folder of code to its digest and back: snapshots, what they leave out, the store that keeps them."""
