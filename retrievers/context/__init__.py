"""Context key-value stores: a passage is encoded once, as the keys and values of every layer, and attended to from then on.

    handbook-contexts/
      manifest.json       the one commit point: whose numbers, in which format, and the segments with their checksums
      contexts.lock       held by the one process that writes
      segments/000007/    contexts.safetensors (tensors, mapped) and index.json (passage id, text hash, tokens, checksum)

A commit writes a segment under a temporary name, flushes it, renames it, and then replaces the manifest. What a stopped writer leaves
outside of the manifest is removed by the next one. A passage is served only if its text and its checksum are those that were stored.
"""
