from touchstone.options import *  # noqa
