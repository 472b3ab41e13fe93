"""The scenario that tests of campaigns share: an LSTM whose steps take less than a millisecond."""

TINY_LSTM = """
workloads:
  lstm:
    model: {kind: lstm, layers: 2, d_model: 8}
    data: {source: synthetic, vocab_size: 16, tokens: 1000}
    seq_len: 4
    global_batch: 8
"""
