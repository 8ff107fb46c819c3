"""What can speak, each driven from outside: nothing of an engine is ever loaded in this process.

speaking.py  what every engine takes and gives, and how a child process is spoken with
child.py     the program that runs in that process
espeak.py    eSpeak NG: more than a hundred languages, a hundred voices, of which
             espeak_voices.py has the good ones, and who is kept for testing
hibari.py    hibari: one natural English voice in 8 MB, four more to download
piper.py     Piper: natural voices in many languages, a model each
command.py   whatever the user has
kinds.py     all of them, by name
"""
