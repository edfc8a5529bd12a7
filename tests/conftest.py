"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("graft", deadline=None)  # tests do not time: a machine may be busy
settings.load_profile("graft")
