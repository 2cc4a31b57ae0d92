"""What the scripts are made of.

Until `script.run` has taken over, a signal ends a script as it ends any other program, without a traceback.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
