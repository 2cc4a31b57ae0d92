"""What `make prove` claims, and how it is proven: docs/PROOFS.md."""
